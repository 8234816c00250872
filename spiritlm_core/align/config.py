"""Configuration of the alignment stages."""

from collections.abc import Set as AbstractSet
from typing import Literal

from pydantic import Field

from spiritlm_core.config import FrozenConfig
from spiritlm_core.references.syntax import ModelReference


class AlignerFitConfig(FrozenConfig):
    """Fitting an alignment model on the corpus itself."""

    teacher: Literal["auto", "pocketsphinx", "none"] = Field(
        "auto",
        description="Who says where sounds begin: pocketsphinx (English only), none (flat start, any language), "
        "or auto: pocketsphinx where it can.",
    )
    minutes: float = Field(60.0, gt=0, description="Most minutes of transcribed train speech that are used.")
    taught_minutes: float = Field(20.0, gt=0, description="Most minutes of train speech put before the teacher.")
    least_minutes: float = Field(
        1.0,
        ge=0,
        description="With fewer minutes of transcribed speech no aligner is fitted and word times are interpolated.",
    )
    asr_minutes: float = Field(
        10.0, gt=0, description="Minutes of speech transcribed first, where there is a recogniser but no transcripts."
    )
    longest_seconds: float = Field(20.0, gt=0, description="Longest utterance in seconds; longer ones are left out.")
    steps: int = Field(600, ge=1, description="Training steps of the aligner.")
    batch_seconds: float = Field(30.0, gt=0, description="Seconds of speech in a training step.")
    learning_rate: float = Field(3e-3, gt=0, description="Peak learning rate of the aligner.")
    ctc_weight: float = Field(1.0, ge=0, description="Weight of the CTC loss of utterances without a teacher.")
    mask_share: float = Field(0.35, ge=0, lt=1, description="Widest share of the mel bands hidden in training.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of activations dropped in training.")
    channels: int = Field(128, ge=8, le=1024, description="Channels of the aligner's convolutions.")
    layers: int = Field(6, ge=1, le=48, description="Convolution blocks of the aligner.")
    mels: int = Field(64, ge=16, le=128, description="Mel bands that the aligner hears.")
    rarest: int = Field(3, ge=1, description="A character seen less often than this gets no output of its own.")
    seed: int = Field(0, ge=0, description="Seed of the weights and of the order of the utterances.")

    def idle(self) -> AbstractSet[str]:
        """What is put before a teacher that there is not."""
        return {"taught_minutes"} if self.teacher == "none" else frozenset()


class WordsConfig(FrozenConfig):
    """Words of every segment and their times."""

    mode: Literal["auto", "given", "transcribe"] = Field(
        "auto",
        description="given: align the transcripts that came with the recordings; transcribe: recognise everything; "
        "auto: recognise where there is no transcript, if there is a recogniser.",
    )
    untranscribed: Literal["speech", "reject"] = Field(
        "speech", description="A segment nobody can transcribe: keep it as speech without words, or reject it."
    )
    max_misfit: float = Field(
        4.0,
        gt=0,
        description="Reject a transcript that is this much less likely than what the aligner hears, in nats per "
        "character; 0.5 is usual, 3 to 10 a wrong transcript.",
    )
    min_confidence: float = Field(-1.0, description="Lowest mean log probability per token of a recognised text.")


class AlignConfig(FrozenConfig):
    """Words and their times: which models, and how to fit one where there is none."""

    aligner: ModelReference | None = Field(
        None, description="A CTC model: a Hugging Face Wav2Vec2ForCTC or an aligner fitted earlier; null fits one here."
    )
    asr: ModelReference | None = Field(
        None, description="A faster-whisper (CTranslate2) folder for segments without a transcript; null: none."
    )
    words: WordsConfig = Field(WordsConfig(), description="Where words of a segment come from; which are refused.")
    fit: AlignerFitConfig = Field(AlignerFitConfig(), description="Fitting an aligner, if `aligner` is null.")
