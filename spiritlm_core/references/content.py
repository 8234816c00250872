"""Digests of files and folders that are the same on every machine; files of weights checked without reading them."""

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.files import file_sha256, read_json, write_atomically
from spiritlm_core.names import checked_name

_MEMO_FROM = 1 << 26  # bytes; hashing less than this is faster than a doubt about the memo
_SETTLED = 2.0  # seconds after which a file's time of change can be trusted


def content_digest(path: Path, memo: Path | None = None, files: Sequence[str] | None = None) -> str:
    r"""sha256 of a file's bytes, or of a folder's listing.

    A folder's digest is that of the text that ``sha256sum`` prints for its files sorted by name (bytewise,
    names relative, hidden files left out), so that it can be computed by hand::

        cd FOLDER
        find . -type f -not -path '*/.*' -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum

    Args:
        path: A file or a folder.
        memo: Folder that remembers the digests of large files by path, size and time of change.
        files: Names of the files of a folder that count; null: all.

    Raises ModelReferenceError: something there is no file (a link that leads nowhere or to a folder, whose content
    would go unseen; a pipe), or there is no file at all, or one of `files` is missing.
    """
    if path.is_file():
        return _file_digest(path, memo)
    names = file_names(path) if files is None else sorted(files, key=os.fsencode)
    if not names:
        raise ModelReferenceError(f"{path} {'holds no files' if path.exists() else 'is not there'}")
    if absent := next((name for name in names if not (path / name).is_file()), None):
        raise ModelReferenceError(f"{path} has no file {absent}")
    lines = "".join(f"{_file_digest(path / name, memo)}  {name}\n" for name in names)
    return hashlib.sha256(os.fsencode(lines)).hexdigest()


def file_names(folder: Path) -> list[str]:
    """Names of the files below `folder`, relative, ``/``-joined, in byte order; nothing hidden."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(folder).as_posix() for path in paths)
    visible = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    if odd := next((name for name in visible if not (folder / name).is_file()), None):
        raise ModelReferenceError(f"{folder / odd} is no file: put the file or folder itself in its place")
    return sorted(visible, key=os.fsencode)


def _file_digest(path: Path, memo: Path | None) -> str:
    before = path.stat()
    if memo is None or before.st_size < _MEMO_FROM:
        return file_sha256(path)
    state = [str(path.resolve()), before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino]
    note = memo / hashlib.sha256(json.dumps(state[:1]).encode()).hexdigest()
    if (known := _noted(note, state)) is not None:
        return known
    digest = file_sha256(path)
    if time.time() - before.st_mtime > _SETTLED and path.stat().st_mtime_ns == before.st_mtime_ns:
        with contextlib.suppress(OSError):  # it only saves time
            write_atomically(note, json.dumps([state, digest]).encode())
    return digest


def _noted(note: Path, state: list[object]) -> str | None:
    try:
        seen, digest = json.loads(note.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return str(digest) if seen == state else None


def file_below(folder: Path, name: str, where: str) -> Path:
    """The file in `folder` that `where` (an archive, an index, a listing) calls `name`.

    Raises ModelReferenceError: the name leads out of the folder.
    """
    try:
        return folder / checked_name(name)
    except ValueError as error:
        raise ModelReferenceError(f"{where}: {error}") from error


def weight_files(index: Path) -> dict[str, Path]:
    """The file that holds each tensor, by the tensor's name.

    Raises ModelReferenceError: `index` is damaged, or names what does not lie beside it.
    """
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
        raise ModelReferenceError(f"{index} has no weight_map of names to files: download it again")
    return {name: file_below(index.parent, file, str(index)) for name, file in where.items()}


def check_indexes(folder: Path) -> None:
    """Check every index in a folder, which libraries then follow. Raises ModelReferenceError."""
    for index in sorted(folder.glob("*.index.json")):
        weight_files(index)


def check_weights(folder: Path) -> None:
    """Check every index in a folder, and whether ``.safetensors`` files in it and below are as long as they say.

    Raises ModelReferenceError: one is cut short, damaged, or leads elsewhere; it is named.
    """
    check_indexes(folder)
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            if not path.is_file():  # a pipe would be waited for
                raise FileNotFoundError(path)
            with safe_open(path, framework="numpy"):
                pass
        except (OSError, SafetensorError) as error:
            raise ModelReferenceError(f"{path}: copy or download it anew, it is damaged: {error}") from error


def check_finite(tensors: Iterable[tuple[str, Any]], path: Path) -> None:
    """Check that the named weights, `torch` tensors of `path`, are numbers. Raises ModelReferenceError: one is not."""
    for name, tensor in tensors:
        if tensor.numel() and not all(math.isfinite(bound) for bound in tensor.detach().aminmax()):
            raise ModelReferenceError(
                f"{path}: tensor {name} holds NaN or infinity: the file is damaged, download it again"
            )
