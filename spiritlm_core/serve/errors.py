"""What a server may do, its address and its limits; and what can go wrong with a request, as HTTP says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, field_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import ModelReferenceError, Rejection, SpiritLMError


class RequestError(SpiritLMError):
    """A request that is not answered: the status of HTTP, a word for programs, and the field at fault.

    It may be tried again after `retry_after` seconds.
    """

    def __init__(
        self, status: int, kind: str, message: str, field: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.field, self.retry_after = status, kind, field, retry_after

    def to_dict(self) -> dict[str, Any]:
        """The body of the response."""
        return {"error": {"type": self.kind, "message": str(self), "field": self.field}}

    @property
    def headers(self) -> dict[str, str]:
        """Of the response."""
        if self.status == 401:
            return {"WWW-Authenticate": 'Basic realm="spiritlm"'}  # browsers then ask for it
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


_OWN = frozenset(f"/v1/{name}" for name in ("generate", "transcribe", "say", "classify", "tokenize", "model", "live"))
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_NAMES = {"text": "input", "speaker": "voice", "audio": "file", "parts": "messages"}


def is_openai(path: str) -> bool:
    """Whether errors of a path have OpenAI's form: all below ``/v1`` but the routes that are only here."""
    return path.startswith("/v1/") and path not in _OWN


def openai_error(error: RequestError) -> dict[str, Any]:
    """The body of a response of the routes that are OpenAI's, with the names that fields have there."""
    kind = _TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    field = None if error.field is None else _NAMES.get(error.field, error.field)
    return {"error": {"message": str(error), "type": kind, "param": field, "code": error.kind}}


INTERNAL = RequestError(500, "internal", "an error of the server: see its log")
"""What is said of all that is not the caller's fault, so that nothing of the server's inside gets out."""


def too_large(limit_mb: float) -> RequestError:
    """A body above the limit."""
    return RequestError(413, "too_large", f"the request is larger than {limit_mb:g} MB: send a shorter recording")


def gone() -> RequestError:
    """A client that does not wait for its answer."""
    return RequestError(499, "gone", "the client has gone")


def closing() -> RequestError:
    """A request that comes, or is still under way, when the server is being ended."""
    return RequestError(503, "closing", "the server is being ended", retry_after=5)


def invalid(message: str, field: str | None = None) -> RequestError:
    """A request that cannot be understood."""
    return RequestError(422, "invalid", message, field)


def silent() -> RequestError:
    """An answer without sound where sound was asked for."""
    return RequestError(400, "silent", "the model answered with nothing that can be heard", "text")


def late(seconds: float) -> RequestError:
    """A request that took too long."""
    return RequestError(504, "timeout", f"not answered within {seconds:g} s: ask for fewer tokens, or try again later")


def as_request_error(error: BaseException) -> RequestError | None:
    """What is said about `error`; None if it is none of the caller's, nor of the machine's memory."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, SpiritLMError | Rejection):
        return RequestError(400, "bad_request", " ".join(str(error).split()))
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return RequestError(503, "out_of_memory", "the machine is out of memory: send less, or try again", None, 5)
    return None


MEGABYTE = 1_000_000


class ServeConfig(FrozenConfig):
    """Address and limits of a server."""

    host: str = Field("127.0.0.1", min_length=1, description="Where it listens; by default for this machine alone.")
    port: int = Field(7860, ge=0, le=65535, description="0 takes a free one.")
    max_upload_mb: float = Field(25, gt=0, description="Largest body of a request, in megabytes.")
    max_seconds: float = Field(60, gt=0, description="Longest recordings, those of one request together.")
    queue: int = Field(16, ge=1, description="Requests at once: the one that is computed and those that wait.")
    max_new_tokens: int = Field(512, ge=1, description="Longest answer that may be asked for.")
    token_limit: int | None = Field(None, ge=1, description="Longest prompt; what the context of the model holds.")
    timeout: float = Field(120, gt=0, description="Seconds until a request is given up.")
    head_timeout: float = Field(10, gt=0, description="Seconds that the head of a request may take to arrive.")
    upload_timeout: float = Field(30, gt=0, description="Seconds that the body of a request may take to arrive.")
    max_connections: int = Field(500, ge=1, description="Open connections; others are closed at once.")
    max_kept_mb: float = Field(1000, gt=0, description="Largest total of the page's recordings; the oldest go first.")
    allow_host: tuple[str, ...] = Field((), description="Further names of this server, such as that of a proxy.")
    token: SecretStr | None = Field(
        None, min_length=1, description="What requests must know, all but those for /health; none by default."
    )
    grace: int = Field(10, ge=0, description="Seconds that requests under way have when the server is ended.")
    aligner: Path | None = Field(
        None,
        description="Folder of an aligner, fitted here or a Wav2Vec2ForCTC, for times of words in transcripts.",
    )
    page: bool = Field(default=True, description="Whether there is a web page beside the HTTP interface.")

    @field_validator("allow_host")
    @classmethod
    def _lower(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.lower() for name in names)

    @field_validator("aligner")
    @classmethod
    def _there(cls, folder: Path | None) -> Path | None:
        if folder is not None and not (folder / "config.json").is_file():
            raise ModelReferenceError(f"--aligner {folder} is no folder of an aligner: it has no config.json")
        return folder

    @field_validator("token")
    @classmethod
    def _sendable(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not (token.get_secret_value().isascii() and token.get_secret_value().isprintable()):
            raise ValueError("a token is printable ASCII, since it is sent as a header of HTTP")
        return token

    @property
    def max_bytes(self) -> int:
        """Largest body of a request, in bytes."""
        return int(self.max_upload_mb * MEGABYTE)
