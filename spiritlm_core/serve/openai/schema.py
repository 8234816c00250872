"""What OpenAI's clients send, typed: see the reference of its API, https://platform.openai.com/docs/api-reference."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from spiritlm_core.audio.encode import AudioFormat
from spiritlm_core.serve.errors import RequestError, invalid
from spiritlm_core.serve.schema import Sampling, Strict

_OTHER_MODELS = re.compile(r"(gpt|chatgpt|whisper|tts)-")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_]\w+)*")
VOICES = frozenset(
    "default alloy ash ballad cedar coral echo fable marin nova onyx sage shimmer verse".split()  # noqa: SIM905
)
"""Names of voices that programs have built in."""

Modality = Literal["text", "audio"]
_MOST_TOKENS = 200_000  # characters of speech tokens in the id of an answer


class OpenAIRequest(Strict):
    """A request of one of OpenAI's clients.

    Fields that cannot change an answer are taken and left alone; those that would change it are refused, unless they
    ask for what is done anyway (`neutral`). A field that is null was not given.
    """

    ignored: ClassVar[frozenset[str]] = frozenset(
        "user metadata store safety_identifier service_tier parallel_tool_calls prediction prompt_cache_key "  # noqa: SIM905
        "prompt_cache_options prompt_cache_retention".split()
    )
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {}

    model: str = Field(description="A model of GET /v1/models; the first of them for the names of OpenAI's models.")
    temperature: float | None = Field(None, ge=0, le=2, description="0, the default, takes the most likely token.")

    @model_validator(mode="before")
    @classmethod
    def _without_what_changes_nothing(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for name, usual in cls.neutral.items():
            if values.get(name) not in (None, *usual):
                raise RequestError(400, "unsupported_parameter", f"{name}={values[name]!r:.60} is not supported", name)
        left_out = (*cls.ignored, *cls.neutral)
        return {name: value for name, value in values.items() if name not in left_out and value is not None}

    @property
    def own_model(self) -> str | None:
        """The name of the model here."""
        return own_model(self.model)


def own_model(name: str) -> str | None:
    """The model that is meant by a name; None is the default, which also answers for OpenAI's models."""
    return None if _OTHER_MODELS.match(name) else name


def sampling_of(request: OpenAIRequest, **more: Any) -> dict[str, Any]:
    """What a request says of how tokens are chosen, for the requests of this server; what is not said is left out."""
    given = {name: getattr(request, name, None) for name in ("temperature", "top_p", "seed")} | more
    return {name: value for name, value in given.items() if name in Sampling.model_fields and value is not None}


class _Part(BaseModel):
    """What clients send back of an answer has fields that say nothing here."""

    model_config = ConfigDict(extra="ignore")


class ContentText(_Part):
    """Text of a message."""

    type: Literal["text"]
    text: str = Field(max_length=100_000)


class InputAudio(_Part):
    """A recording."""

    data: str = Field(description="A file in base64.")
    format: str = Field("wav", description="Not needed: what the file is, is seen from it.")


class ContentAudio(_Part):
    """A recording of a message."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class SpokenBefore(_Part):
    """Speech of an earlier answer."""

    id: str

    @property
    def tokens(self) -> str:
        """Its speech tokens. Raises RequestError: the id is none of this server's."""
        try:
            packed = base64.urlsafe_b64decode(self.id.removeprefix("audio_"))
            return zlib.decompressobj().decompress(packed, _MOST_TOKENS).decode("ascii")
        except (binascii.Error, zlib.error, ValueError) as error:
            raise invalid("an audio of the messages has the id of no answer of this server", "messages") from error


def audio_id(tokens: str) -> str:
    """The id of spoken tokens: it holds them, so that nothing need be remembered from one request to the next."""
    return "audio_" + base64.urlsafe_b64encode(zlib.compress(tokens.encode())).decode()


class Message(_Part):
    """A message; who said it makes no difference to the model, which goes on with all of them."""

    role: Literal["developer", "system", "user", "assistant"]
    content: str | list[Annotated[ContentText | ContentAudio, Field(discriminator="type")]] | None = None
    audio: SpokenBefore | None = Field(None, description="Speech of an earlier answer, by its id.")


class AudioOptions(_Part):
    """How an answer is spoken."""

    voice: str | int = Field("default", description="A name or number of GET /v1/model.")
    format: Literal[AudioFormat, "pcm16"] = Field("wav", description="pcm16 is pcm: 24 kHz, mono.")

    @property
    def kind(self) -> AudioFormat:
        """The format."""
        return "pcm" if self.format == "pcm16" else self.format


class StreamOptions(_Part):
    """What a stream brings besides."""

    include_usage: bool = False


class ChatRequest(OpenAIRequest):
    """A conversation to go on with."""

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {
        "n": (1,),
        "stop": ([], ""),
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "logit_bias": ({},),
        "logprobs": (False,),
        "top_logprobs": (0,),
        "reasoning_effort": ("none",),
        "verbosity": ("medium",),
        "moderation": (),
        "web_search_options": (),
    }

    messages: list[Message] = Field(min_length=1, description="Their contents, in order, are the prompt.")
    modalities: list[Modality] = Field(
        default=["text"], min_length=1, description="text, audio, or both: then the answer is written, and said."
    )
    audio: AudioOptions = Field(default_factory=AudioOptions, description="How an answer in audio sounds.")
    max_completion_tokens: int | None = Field(None, ge=1, description="Longest answer, in tokens.")
    max_tokens: int | None = Field(None, ge=1, description="The same under its older name.")
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, lt=1 << 63, description="0 if not given: the same answer each time.")
    stream: bool | None = Field(None, description="Server-sent events, as the answer comes.")
    stream_options: StreamOptions | None = None

    def parts(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The prompt as parts of a request of this server, and where in the messages each comes from."""
        found = [
            (part, f"messages.{number}{place}")
            for number, message in enumerate(self.messages)
            for part, place in _parts(message)
        ]
        return [part for part, _ in found], [place for _, place in found]


def _parts(message: Message) -> Sequence[tuple[dict[str, Any], str]]:
    if message.audio is not None:
        return [({"kind": "units", "tokens": message.audio.tokens}, ".audio")]
    if message.content is None or isinstance(message.content, str):
        return [({"kind": "text", "text": message.content}, ".content")] if message.content else []
    return [
        ({"kind": "text", "text": part.text}, f".content.{number}")
        if isinstance(part, ContentText)
        else ({"kind": "audio", "data": part.input_audio.data}, f".content.{number}.input_audio")
        for number, part in enumerate(message.content)
    ]


class SpeechRequest(OpenAIRequest):
    """A text to say."""

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {"speed": (1,), "instructions": ("",)}

    input: str = Field(min_length=1, max_length=100_000, description="The text.", examples=["Please hold the line."])
    voice: str | int | dict[str, str | int] = Field("default", description="A name or number of GET /v1/model.")
    response_format: AudioFormat = Field("mp3", description="pcm is 16-bit little-endian, 24 kHz, mono.")
    stream_format: Literal["audio", "sse"] = Field("audio", description="The file as it comes, or server-sent events.")


class TranscriptionRequest(OpenAIRequest):
    """A recording to write down; its file is a field of the form."""

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {
        "prompt": ("",),
        "include": ([],),
        "chunking_strategy": ("auto",),
        "keywords": ([],),
        "languages": ([],),
        "known_speaker_names": ([],),
        "known_speaker_references": ([],),
    }

    language: str = Field(
        "en", max_length=20, description="Code of one that the model was taught; what is heard does not depend on it."
    )
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    timestamp_granularities: list[Literal["word", "segment"]] = Field(
        default_factory=list, description="word: times of words in verbose_json, where the server has an aligner."
    )
    stream: bool | None = Field(None, description="Server-sent events, as the words come.")

    @field_validator("language")
    @classmethod
    def _code(cls, language: str) -> str:
        if not _LANGUAGE.fullmatch(language):
            raise ValueError("a language is a code of two or three letters, such as en")
        return language
