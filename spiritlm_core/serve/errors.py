"""What can go wrong with a request, as HTTP says it."""

from __future__ import annotations

from typing import Any

from spiritlm_core.errors import Rejection, SpiritLMError


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

    def to_page(self) -> dict[str, Any]:
        """The same with a field that the page shows."""
        return {**self.to_dict(), "detail": str(self)}

    @property
    def headers(self) -> dict[str, str]:
        """Of the response."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


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
