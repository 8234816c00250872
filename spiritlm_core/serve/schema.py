"""What the HTTP interface takes and gives, typed."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from spiritlm_core.lm.generate.presets import HEARINGS
from spiritlm_core.lm.generate.prompts import Finish

Output = Literal["text", "speech", "any"]
_TOKENS = "[St3][Pi1][Hu7][Hu9]"


class Strict(BaseModel):
    """An unknown field is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class TextPart(Strict):
    """Text in a prompt."""

    kind: Literal["text"] = "text"
    text: str = Field(max_length=100_000, description="Text, taken as it is.", examples=["the number you have dialed"])


class AudioPart(Strict):
    """A recording in a prompt, in any usual format: in the JSON itself, or a file of a multipart request."""

    kind: Literal["audio"] = "audio"
    data: str | None = Field(None, description="The file in base64, in one line or many, or as a URL data:…;base64,….")
    file: str | None = Field(None, description="Name of the multipart field that holds the file, instead of `data`.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.data is None) == (self.file is None):
            raise ValueError("an audio part has either data (base64) or file (name of a multipart field)")
        return self


class UnitsPart(Strict):
    """Speech in a prompt as speech tokens."""

    kind: Literal["units"] = "units"
    tokens: str = Field(max_length=200_000, description="Speech tokens of the model.", examples=[_TOKENS])


Part = Annotated[TextPart | AudioPart | UnitsPart, Field(discriminator="kind")]
Parts = Annotated[list[Part], Field(max_length=64)]


class Shot(Strict):
    """A solved example."""

    question: Parts = Field(min_length=1, description="What is asked.")
    answer: Parts = Field(min_length=1, description="What is answered.")


class Sampling(Strict):
    """How tokens are chosen."""

    max_new_tokens: int | None = Field(
        None, ge=1, description="Longest answer; if not given, 200 (of say 400) or the limit of the server."
    )
    temperature: float = Field(0.0, ge=0, le=100, description="0 takes the most likely token.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw among the likeliest tokens of this share.")
    top_k: int = Field(0, ge=0, le=1_000_000, description="Sample among so many tokens; 0 among all.")
    seed: int = Field(0, ge=0, lt=1 << 63, description="Seed of what is drawn at random.")


class TaskRequest(Sampling):
    """What every request for an answer may say."""

    usual_tokens: ClassVar[int] = 200  # longest answer where `max_new_tokens` is not given
    model: str | None = Field(None, description="Name of one of the models of GET /v1/model; the first if not given.")
    shots: list[Shot] = Field(default_factory=list, max_length=32, description="Solved examples in front.")


def _speaker(value: Any) -> Any:
    known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1 << 16
    if not (value is None or known or (isinstance(value, str) and 0 < len(value) <= 200)):
        raise ValueError("a speaker is a number, counted from 0, or a name")
    return value


Speaker = Annotated[int | str | None, BeforeValidator(_speaker)]


class VoiceOptions(Strict):
    """Whose voice speech has."""

    speaker: Speaker = Field(None, description="The voice, by number or name; the vocoder's default.")
    expression: int | None = Field(None, ge=0, le=1 << 16, description="Manner of speaking, if there are several.")


class GenerateRequest(TaskRequest, VoiceOptions):
    """A prompt to continue."""

    parts: Parts = Field(
        default_factory=list,
        description="Text, recordings and speech tokens in their order.",
        examples=[[{"kind": "text", "text": "Here is the news:"}, {"kind": "units", "tokens": _TOKENS}]],
    )
    output: Output = Field("any", description="Modality of the answer.")
    wav: bool = Field(default=True, description="Whether speech comes as WAV, too, where there is a vocoder.")
    stream: bool = Field(default=False, description="Server-sent events, as the answer comes.")


class TranscribeRequest(TaskRequest):
    """A recording to write down."""

    audio: AudioPart | UnitsPart = Field(discriminator="kind", description="The recording, or its speech tokens.")
    hearings: int = Field(
        HEARINGS,
        ge=1,
        le=HEARINGS,
        description="How often the recording is heard, later each time; the likeliest answer is kept.",
    )


class SayRequest(TaskRequest, VoiceOptions):
    """A text to say."""

    usual_tokens: ClassVar[int] = 400

    text: str = Field(max_length=100_000, description="The text.", examples=["Please hold the line."])
    format: Literal["wav", "json"] = Field("wav", description="A WAV file, or JSON with it in base64.")

    @field_validator("text")
    @classmethod
    def _not_blank(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("there is nothing in it to say")
        return text


class ClassifyRequest(Strict):
    """A question whose answer is one of a few labels."""

    model: str | None = Field(None, description="Name of one of the models of GET /v1/model; the first if not given.")
    parts: Parts = Field(min_length=1, description="The question.")
    labels: list[Annotated[str, Field(min_length=1, max_length=1000)]] = Field(
        min_length=2, max_length=100, description="Possible answers.", examples=[["happy", "sad"]]
    )
    shots: list[Shot] = Field(
        default_factory=list, max_length=32, description="Solved examples: each answer is a text, one of the labels."
    )


class TokenizeRequest(Strict):
    """A recording to turn into units."""

    model: str | None = Field(None, description="Name of one of the models of GET /v1/model; the first if not given.")
    audio: AudioPart = Field(description="The recording.")


class TextAnswer(BaseModel):
    """A stretch of text in an answer."""

    kind: Literal["text"] = "text"
    text: str


class SpeechAnswer(BaseModel):
    """A stretch of speech in an answer."""

    kind: Literal["speech"] = "speech"
    tokens: str = Field(description="Speech tokens.", examples=[_TOKENS])
    sample_rate: int = Field(16_000, description="Sampling rate of the WAV file, in hertz.")
    wav: str | None = Field(None, description="A WAV file in base64, if it can be heard.")
    silent: str | None = Field(None, description="Why the speech, or the rest of it, cannot be heard.")


Segment = Annotated[TextAnswer | SpeechAnswer, Field(discriminator="kind")]


class GenerateResponse(BaseModel):
    """What the model made of the prompt."""

    model: str
    segments: list[Segment] = Field(description="Stretches of text and speech in order; neighbours differ in kind.")
    finish: Finish = Field(description="What ended the answer.")
    prompt_tokens: int
    new_tokens: int


class TranscribeResponse(BaseModel):
    """What was said, as the model has it."""

    model: str
    text: str
    finish: Finish = Field(description="What ended it; silence: there was nothing to write down.")
    empty: str | None = Field(None, description="Why there is no text.")


class ClassifyResponse(BaseModel):
    """The most likely label."""

    model: str
    label: str
    probabilities: dict[str, float] = Field(description="Probability of each label, if the answer is one of them.")
    nats: dict[str, float] = Field(description="Negative log-likelihood of each label as the answer.")
    empty: str | None = Field(None, description="Why the label tells nothing of the recordings: they are silent.")


class TokenizeResponse(BaseModel):
    """Units of a recording."""

    model: str
    tokens: str = Field(description="Speech tokens, runs of equal units as one.", examples=[_TOKENS])
    hubert: list[int] = Field(description="Units at 25 Hz.")
    pitch: list[int] | None = Field(description="Units at 12.5 Hz; null without.")
    style: list[int] | None = Field(description="Units at 1 Hz; null without.")


class Limits(BaseModel):
    """What a request may not exceed."""

    max_upload_mb: float
    max_seconds: float
    queue: int
    max_new_tokens: int
    token_limit: int | None
    timeout: float


class Health(BaseModel):
    """How the server is."""

    ready: bool
    model: str = Field(description="The default model.")
    queue_depth: int = Field(description="Requests that are computed, wait or arrive.")
    limits: Limits


class ModelDescription(BaseModel):
    """A model that is served."""

    name: str
    variant: Literal["base", "expressive"]
    context_length: int = Field(description="Most tokens of prompt and answer.")
    text_tokens: int
    units: dict[str, int] = Field(description="Number of units of each stream.")
    hears: bool = Field(description="Whether recordings can be given.")
    speaks: bool = Field(description="Whether speech comes with a WAV file.")
    speakers: int = Field(description="Number of voices; 0 if it has one.")
    speaker_names: list[str] = Field(description="Names of the voices, by number; empty if they have none.")
    expressions: int = Field(description="Number of manners of speaking.")
    doubts: dict[str, str] = Field(
        description="Task (transcribe, say, classify) → a sentence, where the model's own evaluation does not show it "
        "to be better than trivial answers."
    )


class Models(BaseModel):
    """All models that are served."""

    models: list[ModelDescription]


class ErrorDetail(BaseModel):
    """What is wrong with a request."""

    type: str = Field(description="A word for programs.", examples=["invalid"])
    message: str = Field(description="One sentence for people.")
    field: str | None = Field(description="What of the request is at fault.", examples=["parts.0.audio"])


class Error(BaseModel):
    """The body of every response that is an error."""

    error: ErrorDetail
