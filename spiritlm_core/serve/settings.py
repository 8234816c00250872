"""What a server may do: its address and its limits."""

from __future__ import annotations

from pydantic import Field, field_validator

from spiritlm_core.config import FrozenConfig

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
    grace: int = Field(10, ge=0, description="Seconds that requests under way have when the server is ended.")
    page: bool = Field(default=True, description="Whether there is a web page beside the HTTP interface.")

    @field_validator("allow_host")
    @classmethod
    def _lower(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.lower() for name in names)

    @property
    def max_bytes(self) -> int:
        """Largest body of a request, in bytes."""
        return int(self.max_upload_mb * MEGABYTE)
