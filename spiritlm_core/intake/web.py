"""Recordings on the web: one file at a time, within bounds of size and time."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from functools import lru_cache
from typing import IO, TYPE_CHECKING, BinaryIO

from spiritlm_core.intake.files import File

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 2**30  # A larger file is refused
MOST_SECONDS = 300.0  # A download that takes longer is given up
_PATIENCE = 20.0  # seconds until a server must have answered, or sent the next bytes
_TRIES = 3


def ask_web(file: File) -> File:
    """`file` with the size and version that its server tells; neither where it tells none.

    Raises OSError: the address cannot be reached, or there is no such file.
    """
    import httpx

    try:
        answer = httpx.head(file.uri, follow_redirects=True, timeout=_PATIENCE)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise OSError(_reason(error)) from error
    if answer.status_code in (405, 501):  # this server answers no HEAD
        return file
    _check(answer)
    version = answer.headers.get("etag") or answer.headers.get("last-modified") or ""
    return dataclasses.replace(file, size=int(answer.headers.get("content-length") or 0), version=version)


def open_web(uri: str) -> BinaryIO:
    """A local copy of a web address, open for reading.

    Raises OSError: it cannot be reached, is larger than `MOST_BYTES`, or takes longer than `MOST_SECONDS`.
    """
    version = ask_web(File(uri, uri)).version
    copy = _kept(uri, version) if version else _fetch(uri)
    return open(copy.name, "rb")  # noqa: PTH123 - the caller closes


@lru_cache(maxsize=16)
def _kept(uri: str, version: str) -> IO[bytes]:
    """The last few downloads: a recording is hashed first and decoded then."""
    del version
    return _fetch(uri)


def _fetch(uri: str) -> IO[bytes]:
    """The whole file in a temporary one, which goes when nobody holds it."""
    import httpx

    for left in reversed(range(_TRIES)):
        copy = tempfile.NamedTemporaryFile(prefix="spiritlm-")  # noqa: SIM115 - outlives this function
        try:
            with httpx.stream("GET", uri, follow_redirects=True, timeout=_PATIENCE) as answer:
                _check(answer)
                _copy(answer, copy)
        except (httpx.InvalidURL, ValueError) as error:
            raise OSError(_reason(error)) from error
        except httpx.HTTPError as error:
            if not left:
                raise OSError(_reason(error)) from error
        else:
            return copy
    raise AssertionError("not reached")


def _copy(answer: httpx.Response, copy: IO[bytes]) -> None:
    size, until = 0, time.monotonic() + MOST_SECONDS
    for piece in answer.iter_bytes():
        size += len(piece)
        if size > MOST_BYTES:
            raise OSError(f"larger than {MOST_BYTES / 2**30:g} GiB")
        if time.monotonic() > until:
            raise OSError(f"takes longer than {MOST_SECONDS:g} s to download")
        copy.write(piece)
    copy.flush()


def _check(answer: httpx.Response) -> None:
    if not answer.is_success:
        raise OSError(f"{answer.url.host} answered {answer.status_code} {answer.reason_phrase}")
    if int(answer.headers.get("content-length") or 0) > MOST_BYTES:
        raise OSError(f"larger than {MOST_BYTES / 2**30:g} GiB")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
