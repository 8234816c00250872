"""WhisperX without its downloads: forced alignment with a local CTC model, transcription with a local Whisper."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from spiritlm_core.align.interpolate import Span
from spiritlm_core.align.teacher import BOUNDARY
from spiritlm_core.errors import ModelReferenceError, Rejection
from spiritlm_core.files import read_json
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.language import main_code

UNFITTED = "unfitted"
_FOREIGN = "Wav2Vec2ForCTC"  # what an aligner of others is
_BLANKS = ("<pad>", "[pad]")
_END = "\x03"  # end of text; no transcript has it
_FRAME = 320  # samples per emission of every model used here
_LONGEST = 30.0  # seconds that Whisper hears at once
_NOISE = re.compile(r"\([^()\d]*\)|\[[^][\d]*\]|♪[^♪]*♪?")


def prepare() -> None:
    """Keep what WhisperX imports from spinning; called before the first import of it."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads that spin slow down every other worker


class Heard:
    """What a CTC model heard in one segment.

    Attributes:
        logits: float32 tensor (frames, labels).
        duration: Of the segment, padded to whole frames, in seconds.
    """

    def __init__(self, logits: Any, duration: float, dictionary: dict[str, int]) -> None:
        self.logits = logits
        self.duration = duration
        self.dictionary = dictionary
        self.blank = next((dictionary[name] for name in _BLANKS if name in dictionary), 0)

    @cached_property
    def log_probs(self) -> Any:
        """Log probabilities (frames, labels)."""
        return self.logits.log_softmax(-1)

    def reading(self) -> str:
        """The greedy reading, without word boundaries."""
        best = self.logits.argmax(-1).tolist()
        names = {label: character for character, label in self.dictionary.items() if len(character) == 1}
        kept = [label for label, before in zip(best, [self.blank, *best], strict=False) if label != before]
        return "".join(names.get(label, "") for label in kept if label != self.blank).replace(BOUNDARY, "")

    def misfit(self, words: Sequence[str]) -> float:
        """How much less likely `words` are than the likeliest labels, in nats per character; inf if impossible.

        The CTC likelihood sums over all alignments, so a good transcript can get a little below zero.
        """
        text = BOUNDARY.join(words)
        known = sum(character in self.dictionary for character in text)
        if not known:
            return 0.0
        # Models differ in whether a boundary follows the last word.
        likely = max(self._log_likelihood(text), self._log_likelihood(text + BOUNDARY))
        return (float(self.log_probs.amax(-1).sum()) - likely) / known

    def gain(self, words: Sequence[str]) -> float:
        """How much likelier `words` are than the same letters backwards, in nats per character; nan if both cannot be.

        Whatever the aligner and the voice, about 0 for a text that was not said: it is as good as any other.
        """
        return self.misfit([word[::-1] for word in reversed(words)]) - self.misfit(words)

    def _log_likelihood(self, text: str) -> float:
        import torch

        labels = torch.tensor([self.dictionary[c] for c in text if c in self.dictionary])
        sizes = torch.tensor([len(self.log_probs)]), torch.tensor([len(labels)])
        loss = torch.nn.functional.ctc_loss(
            self.log_probs[:, None], labels[None], *sizes, blank=self.blank, reduction="sum"
        )
        return -float(loss)


@dataclass(frozen=True)
class Aligner:
    """A CTC model and its labels, ready for ``whisperx.align``."""

    model: Any
    dictionary: dict[str, int]
    device: str

    @classmethod
    def load(cls, folder: Path, language: str) -> Aligner | None:
        """Load an aligner fitted by this project, or a Hugging Face ``Wav2Vec2ForCTC`` folder.

        Returns None for the placeholder that stands for "there was too little speech to fit one". Raises
        ModelReferenceError: the folder holds another model, or a damaged configuration.
        """
        prepare()
        config = read_json(folder / "config.json")
        if config.get("model_type") == UNFITTED:
            return None
        import torch

        from spiritlm_core.align.ctc import MODEL_TYPE, CTCAligner

        device = "cuda" if torch.cuda.is_available() else "cpu"
        if config.get("model_type") == MODEL_TYPE:
            fitted = CTCAligner.load(folder).to(device)
            return cls(fitted, fitted.dictionary, device)
        if (named := config.get("architectures") or [_FOREIGN]) != [_FOREIGN]:
            raise ModelReferenceError(f"{folder} is no aligner: its config.json names {named}, not {_FOREIGN}")
        import whisperx

        with contextlib.redirect_stdout(sys.stderr):
            model, about = whisperx.load_align_model(language, device, model_name=str(folder), model_cache_only=True)
        return cls(model.eval(), about["dictionary"], device)

    def hear(self, waveform: np.ndarray) -> Heard:
        """Run the model on float32[T] at 16 kHz."""
        import torch

        length = max(len(waveform), 2 * _FRAME)
        padded = np.pad(waveform, (0, length - len(waveform) + -length % _FRAME)).astype(np.float32, copy=False)
        with torch.inference_mode():
            logits = self.model(torch.from_numpy(padded)[None].to(self.device)).logits[0].float().cpu()
        return Heard(logits, len(padded) / SAMPLE_RATE, self.dictionary)

    def align(self, heard: Heard, words: Sequence[str]) -> list[Span | None]:
        """Times of `words` (lower case, no white space inside).

        Returns one entry per word; None for a word most of whose characters the model does not know. Raises Rejection:
        the words do not fit into the audio.
        """
        from whisperx import alignment

        logits, dictionary = _with_end(heard.logits, self.dictionary)
        duration = heard.duration * len(logits) / len(heard.logits)
        segment: Any = {"text": " ".join([*words, _END]), "start": 0.0, "end": duration}
        about = {"language": "any", "dictionary": dictionary, "type": "huggingface"}
        samples = np.zeros(round(duration * SAMPLE_RATE), np.float32)  # only its length is looked at
        with _one_sentence(alignment):
            # whisperx wants a model; it gets the emission that is known already
            answer = alignment.align([segment], lambda _: SimpleNamespace(logits=logits[None]), about, samples, "cpu")
        timed = answer["word_segments"]
        if len(timed) != len(words) + 1:
            raise Rejection("the transcript does not fit the audio: no alignment exists")
        return [self._span(word, entry) for word, entry in zip(words, timed, strict=False)]

    def _span(self, word: str, entry: Any) -> Span | None:
        known = sum(character in self.dictionary for character in word)
        if 2 * known < len(word) or "start" not in entry or "end" not in entry:
            return None
        return Span(float(entry["start"]), float(entry["end"]), float(entry.get("score", 0.0)))


def _with_end(logits: Any, dictionary: dict[str, int]) -> tuple[Any, dict[str, int]]:
    """Add a label for the end of the text, heard in one more frame at the end and nowhere else.

    WhisperX lets an alignment end anywhere and forgets what is said afterwards; a text that must end with this
    label has to account for the whole segment.
    """
    import torch

    longer = torch.nn.functional.pad(logits, (0, 1, 0, 1), value=-1e4)
    longer[-1, -1] = 1e4
    return longer, {**dictionary, _END: logits.shape[1]}


@contextlib.contextmanager
def _one_sentence(alignment: Any) -> Iterator[None]:
    """Put a splitter that knows one sentence in the place of NLTK's, whose data would be downloaded.

    Word times do not depend on sentences. Only the name inside ``whisperx.alignment`` changes, for one call.
    """
    before, log_level = alignment.nltk_load, alignment.logger.level
    alignment.nltk_load = lambda *_: SimpleNamespace(span_tokenize=lambda text: [(0, len(text))])
    alignment.logger.setLevel("CRITICAL")  # what it warns about becomes a rejected row
    try:
        yield
    finally:
        alignment.nltk_load = before
        alignment.logger.setLevel(log_level)


class Transcriber:
    """Speech recognition of one segment at a time with a faster-whisper model, without voice activity detection."""

    def __init__(self, folder: Path) -> None:
        prepare()
        import torch
        import whisperx

        device = "cuda" if torch.cuda.is_available() else "cpu"
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about decoders that are not used: it gets arrays
            self._pipeline = whisperx.load_model(
                str(folder),
                device,
                compute_type="float16" if device == "cuda" else "int8",
                language="en",  # to begin with, or it says that none is given; `transcribe` names the right one
                vad_model=_whole_segment(),
                local_files_only=True,
                threads=1,
            )

    def transcribe(self, waveform: np.ndarray, language: str) -> tuple[str, float]:
        """The text of float32[T] at 16 kHz and its mean log probability per token.

        Raises Rejection: the model does not know the language.
        """
        code = _whisper_code(language)
        multilingual = bool(self._pipeline.model.model.is_multilingual)
        if not multilingual and code != "en":
            raise Rejection(f"the speech recogniser knows English only, this is {language!r}")
        answer: Any = self._pipeline.transcribe(waveform, batch_size=1, language=code, task="transcribe")
        texts = [_NOISE.sub(" ", part["text"]) for part in answer["segments"]]
        confidence = float(np.mean([part["avg_logprob"] for part in answer["segments"]]))
        return " ".join(" ".join(texts).split()), confidence


def _whisper_code(language: str) -> str:
    """Whisper's code of a language, which is not always that of the standard. Raises Rejection if it has none."""
    from faster_whisper.tokenizer import _LANGUAGE_CODES
    from langcodes import closest_supported_match

    if (code := closest_supported_match(main_code(language), _LANGUAGE_CODES, max_distance=9)) is None:
        raise Rejection(f"Whisper does not know the language {language!r}")
    return code


def _whole_segment() -> Any:
    """A voice activity "model" that finds the whole segment: the ingest stage has looked already."""
    from whisperx.vads import Vad

    class WholeSegment(Vad):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(vad_onset=0.5)

        @staticmethod
        def preprocess_audio(audio: np.ndarray) -> np.ndarray:
            return audio

        def __call__(self, audio: dict[str, Any]) -> list[dict[str, Any]]:
            duration = len(audio["waveform"]) / audio["sample_rate"]
            edges = np.linspace(0.0, duration, max(1, int(np.ceil(duration / _LONGEST))) + 1)
            return [{"start": float(a), "end": float(b), "segments": []} for a, b in pairwise(edges)]

        @staticmethod
        def merge_chunks(segments: Any, *_: Any, **__: Any) -> Any:
            return segments

    return WholeSegment()
