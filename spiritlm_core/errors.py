"""Errors of the library. Every message names the file or field at fault and what to do about it.

Three kinds are told apart, because they are treated differently:

* :class:`SpiritLMError` — the caller can act on it; shown without a traceback, the run stops.
* :class:`Rejection` — one item is bad; it becomes a rejected row and the run goes on.
* machine errors (memory, CUDA, disk, network) — the shard is retried elsewhere, see :func:`is_machine_error`.
"""

import errno
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})  # what the system says where no space is left
_MACHINE_ERRNOS = {
    *FULL,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EROFS,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ETIMEDOUT,
    errno.EPIPE,
}


class SpiritLMError(Exception):
    """An error that the caller can act on."""


class RecipeError(SpiritLMError):
    """A recipe or an override is not valid."""


class SourceError(SpiritLMError):
    """A source of recordings cannot be listed at all."""


class ModelReferenceError(SpiritLMError):
    """A model reference cannot be resolved."""


class LakeError(SpiritLMError):
    """The lake holds something unexpected, or cannot be reached."""


class NothingToTrainOnError(SpiritLMError):
    """No row of the corpus is in a stream that training draws from."""


class ShardFailedError(SpiritLMError):
    """A shard kept failing; the run stops and can be started again."""


class TrainingError(SpiritLMError):
    """Training cannot go on: it diverged, its processes kept dying, or it was asked to stop."""


class CheckpointError(SpiritLMError):
    """A checkpoint cannot be written or loaded, or belongs to something else."""


class DamagedCheckpointError(SpiritLMError):
    """There are checkpoints, and none of them can be used."""


class Rejection(Exception):  # noqa: N818 - a verdict on an item, not an error of the program
    """One item cannot be processed; ``str(error)`` is the reason stored in its row."""


def is_machine_error(error: BaseException) -> bool:
    """Whether `error` is the machine's (retry the shard) rather than the item's (reject the row)."""
    if isinstance(error, MemoryError | ConnectionError | TimeoutError | SpiritLMError):
        return True
    if isinstance(error, OSError):
        return error.errno in _MACHINE_ERRNOS
    text = str(error)
    return isinstance(error, RuntimeError) and ("CUDA" in text or "out of memory" in text or "alloc" in text)


def attempt(call: Callable[[], Result], kept: tuple[type[Exception], ...] = ()) -> Result | Exception:
    """The result or the error of `call`; errors of the machine are raised, but for those to be `kept`."""
    try:
        return call()
    except Exception as error:
        if is_machine_error(error) and not isinstance(error, kept):
            raise
        return error


def reason_of(error: BaseException) -> str:
    """One line that says why an item was rejected."""
    text = " ".join(str(error).split()) or "no details given"
    text = text if isinstance(error, Rejection) else f"{type(error).__name__}: {text}"
    return text[:500]
