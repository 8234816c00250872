"""Work in this process, one thing after the other: for debugging and small tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spiritlm_core.lake.stage import Progress
from tasks.calls import Reply, Wish
from tasks.worker import Worker


class InlineMember:
    """This process as a worker; a call ends before it returns."""

    def __init__(self, uri: str) -> None:
        """`uri` is the lake."""
        self.worker = Worker(uri, 1)
        self.replies = [Reply()]

    def call(self, method: str, arguments: Sequence[Any], progress: Progress | None = None) -> None:
        """Do it."""
        self.replies.append(self.worker.answer(method, arguments, progress))

    def kill(self) -> None:
        """Nothing to end."""


class InlineExecutor:
    """One worker, which is this process."""

    reserves = False

    def __init__(self, uri: str) -> None:
        """`uri` is the lake."""
        self.uri = uri

    def kind(self, wish: Wish) -> None:
        """One for all wishes."""

    def room(self, wish: Wish) -> int:
        """One."""
        del wish
        return 1

    def hire(self, wish: Wish) -> InlineMember:
        """This process."""
        del wish
        return InlineMember(self.uri)

    def wait(self, members: Sequence[InlineMember], seconds: float) -> list[tuple[InlineMember, Reply]]:
        """What has been done since the last time."""
        del seconds
        return [(member, member.replies.pop(0)) for member in members if member.replies]
