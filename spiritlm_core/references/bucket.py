"""A copy of an S3 object or prefix on this machine."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from spiritlm_core.errors import LakeError, ModelReferenceError
from spiritlm_core.files import new_entry, write_atomically
from spiritlm_core.references.content import file_below
from spiritlm_core.store.objects import Entry, Store
from spiritlm_core.store.uri import open_store, split_uri


def from_bucket(uri: str, cache: Path) -> Path:
    """The local copy of ``s3://bucket/path``: a file for an object, a folder for a prefix.

    Objects are fetched once per version. If the store cannot be reached, the copy seen last is used.

    Raises:
        ModelReferenceError: Nothing there, or not reachable and not cached.
    """
    folder = cache / "s3" / hashlib.sha256(uri.encode()).hexdigest()[:32]
    latest = folder / "latest"
    try:
        store, entries = _listing(uri)
    except (LakeError, OSError) as error:
        if latest.exists():
            return _inside(file_below(folder, latest.read_text(), str(latest)))
        raise ModelReferenceError(f"{uri} cannot be reached: {error}") from error
    if not entries:
        raise ModelReferenceError(f"{uri}: there is nothing at that place")
    version = hashlib.sha256(json.dumps([[e.path, e.size, e.version] for e in entries]).encode()).hexdigest()[:32]
    if not (folder / version).exists():
        with new_entry(folder / version) as scratch:
            _copy(store, entries, scratch / "content")
    write_atomically(latest, version.encode())
    return _inside(folder / version)


def _listing(uri: str) -> tuple[Store, list[Entry]]:
    """What lies below `uri`, or the one object that `uri` names."""
    base = uri.rstrip("/")
    store = open_store(base)
    if entries := list(store.walk()):
        return store, [Entry(f"tree/{entry.path}", entry.size, entry.version) for entry in entries]
    store, name = split_uri(base)
    if not store.exists(name):
        return store, []
    return store, [Entry(f"file/{name}", 0, f"{store.modified(name)}")]


def _copy(store: Store, entries: list[Entry], target: Path) -> None:
    for entry in entries:
        path = file_below(target, entry.path, store.uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        with store.open(entry.path.partition("/")[2]) as source, path.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 22)


def _inside(copy: Path) -> Path:
    """``tree`` is the model's folder itself, ``file`` holds the one file."""
    tree = copy / "tree"
    return tree if tree.is_dir() else next((copy / "file").iterdir())
