"""Files of this machine: their digests, and files and folders that others see whole or not at all."""

import codecs
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from spiritlm_core.errors import ModelReferenceError, SourceError, SpiritLMError

TEMPORARY = ".tmp-"  # how the name of what is not finished begins
_MARKS = (
    *((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")),
    *((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")),
)


def cache_folder() -> Path:
    """Where this machine keeps copies of remote files: ``$XDG_CACHE_HOME/spiritlm`` or ``~/.cache/spiritlm``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spiritlm"


@contextmanager
def locked(path: Path) -> Iterator[TextIO]:
    """An empty file that one process of this machine has at a time; the others wait.

    The lock ends with the process, however that ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        yield file


def is_locked(path: Path) -> bool:
    """Whether a process that lives has the file as :func:`locked` gives it."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def file_sha256(path: Path) -> str:
    """The sha256 of a file, read piece by piece."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_intact(path: Path, sha256: str) -> bool:
    """Whether the file is there and its bytes have this sha256; looked at once per process and state of the file."""

    def check(file: Path) -> None:
        if not file.is_file() or file_sha256(file) != sha256:  # a pipe would be waited for
            raise ValueError(f"{file} is damaged")

    try:
        check_once(path, check, sha256)
    except (ValueError, OSError):
        return False
    return True


_checked: dict[Path, tuple[object, ...]] = {}


def check_once(path: Path, check: Callable[[Path], None], expected: str = "") -> None:
    """Call ``check(path)`` unless this process did for this very state of the file; it raises what `check` raises."""
    stat = os.stat(path)  # noqa: PTH116 - one call for all of it
    state = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, expected)
    if _checked.get(path) != state:
        check(path)
        _checked[path] = state


@contextmanager
def written(path: Path, data: bytes, *, sync: bool = False) -> Iterator[Path]:
    """A temporary file with `data` beside `path`, to be renamed; else it goes. `sync`: the data is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.chmod(0o644)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see it whole or not at all."""
    with written(path, data) as temporary:
        temporary.replace(path)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A path for a file that becomes `target`, whole, when the block ends well; its folder must be there.

    Raises SpiritLMError: as of :func:`filling`.
    """
    with filling(target), tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=TEMPORARY) as scratch:
        yield Path(scratch) / target.name
        (Path(scratch) / target.name).replace(target)


@contextmanager
def filling(target: Path) -> Iterator[None]:
    """Whoever writes `target` is told which disk has no room, or fails. Raises SpiritLMError: that is so."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:  # it says which file: perhaps one that is read
            raise
        folder = target.absolute().parent
        room = f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB are free in {folder}"
        raise SpiritLMError(f"{target} cannot be written: {error.strerror or error} ({room})") from error


def encoding_of(data: bytes, otherwise: str = "utf-8") -> str:
    """The encoding that a byte order mark tells, else the other one."""
    return next((name for mark, name in _MARKS if data.startswith(mark)), otherwise)


def text_of(data: bytes, what: object) -> str:
    """Text in UTF-8, or in UTF-16 or UTF-32 behind a byte order mark. Raises SourceError: `what` is none."""
    encoding = encoding_of(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise SourceError(f"{what} is not {encoding.upper()} text (byte {error.start}): save it as UTF-8") from None
    if "\0" in text:
        raise SourceError(f"{what} is no text, it holds NUL characters: save it as UTF-8")
    return text


def read_text(path: Path) -> str:
    """The text in a file that people wrote. Raises SourceError: it cannot be read; else see :func:`text_of`."""
    try:
        return text_of(path.read_bytes(), path)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model. Raises ModelReferenceError if there is none that can be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelReferenceError(f"{path}: not a readable JSON file: {error}") from error
    if not isinstance(values, dict):
        raise ModelReferenceError(f"{path}: not a JSON object")
    return values


def write_json(path: Path, value: Any) -> None:
    """Write UTF-8 JSON that people can read, as :func:`write_atomically`. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


@contextmanager
def new_entry(target: Path) -> Iterator[Path]:
    """A scratch folder whose ``content`` becomes `target` when the block ends well.

    Of several processes that fill the same entry at once the first wins, the others use its copy.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=TEMPORARY))
    try:
        yield scratch
        try:
            (scratch / "content").rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_new(out: Path) -> None:
    """Raise SpiritLMError if a new folder cannot be `out`: it is a file, or holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SpiritLMError(f"{out} is not empty: name a new folder with --out")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A path beside `target` for a folder that takes its place, and that of an older one, when the block ends well.

    What a process that was killed has left beside `target` goes first.

    Raises:
        SpiritLMError: there can be no such folder.
        OSError: as where another process was quicker.
    """
    with _work_beside(target) as work, locked(work / "lock"):
        fresh, old = work / "new", work / "old"
        yield fresh
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            if old.exists() and not target.exists():
                old.rename(target)
            raise


@contextmanager
def _work_beside(target: Path) -> Iterator[Path]:
    """A folder beside `target`, until the block ends."""
    if target.parts and re.fullmatch(r"[a-z0-9+]+:", target.parts[0]):  # s3:/bucket
        raise SpiritLMError(f"{target} is an address: name a folder of this machine")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{glob.escape(target.name)}.*/lock"):
            if not is_locked(left):
                shutil.rmtree(left.parent, ignore_errors=True)
        work = tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise SpiritLMError(f"{target} cannot be made ({error.strerror} at {target.parent})") from error
    with work as name:
        yield Path(name)


def markdown(template: Path, **values: Any) -> str:
    """A Jinja template of a Markdown file with its values as they are; one that is missing is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=False,  # noqa: S701 - Markdown, not HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)
