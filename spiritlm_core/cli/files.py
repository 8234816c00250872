"""Files named on the command line: one by one, in batches, solved examples in them; and waveforms written to files."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

import numpy as np
import typer
from numpy.typing import NDArray

from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.audio.encode import Encoder
from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.files import read_text, write_atomically
from spiritlm_core.lm.generate.content import Speech, Text

T = TypeVar("T")


def is_file(name: str) -> bool:
    """Whether `name` names a file; a long text is no file name."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def check_any(names: Iterable[str]) -> None:
    """Whether there is work at all, before a model is loaded for it; ``-`` is standard input.

    Raises SpiritLMError: none of the files is there.
    """
    given = list(names)
    if not any(name == "-" or is_file(name) for name in given):
        raise SpiritLMError("\n".join(f"{name}: {_absent(name)}" for name in given))


def _absent(name: str) -> str:
    return "it is a folder: name the files in it" if os.path.isdir(name) else "there is no such file"  # noqa: PTH112 - of any text


def content(name: str) -> bytes | Path:
    """What a command reads for a name: the file, or for ``-`` the bytes of standard input."""
    return sys.stdin.buffer.read() if name == "-" else Path(name)


class Failures:
    """What cannot be done of several: each is named on standard error, the others are still done."""

    def __init__(self) -> None:
        self._count = 0

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        """Go on after an error of this one. Raises ModelReferenceError, which concerns all of them."""
        try:
            yield
        except ModelReferenceError:
            raise
        except SpiritLMError as error:
            self._count += 1
            typer.echo(f"spiritlm: {error if name in str(error) else f'{name}: {error}'}", err=True)

    def leave(self) -> NoReturn:
        """End the command: its exit status is 1 if anything could not be done."""
        raise typer.Exit(1 if self._count else 0)


def in_batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items, `size` at a time; a terminal shows how many are done."""
    shown = len(items) > size and sys.stderr.isatty()
    for first in range(0, len(items), size):
        if shown:
            typer.echo(f"\r{first}/{len(items)}", err=True, nl=False)
        yield items[first : first + size]
    if shown:
        typer.echo("\r\033[K", err=True, nl=False)


def read_shots(path: Path, output: str) -> list[tuple[Any, Any]]:
    """Pairs of question and answer, the answer in `output`, text or speech.

    Each line is ``{"audio": FILE, "text": …}`` or ``{"speech": TOKENS, "text": …}``; a file is relative to `path`.
    Raises SpiritLMError: it cannot be read, or a line is neither.
    """
    if output.lower() not in ("text", "speech"):
        raise SpiritLMError("--shots needs --output text or --output speech, which says what they answer")
    pairs: list[tuple[Any, Any]] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        spoken, written = _shot(line, path.parent, f"{path}:{number}")
        pairs.append((spoken, Text(written)) if output.lower() == "text" else (Text(written), spoken))
    return pairs


def _shot(line: str, folder: Path, where: str) -> tuple[Any, str]:
    try:
        shot = json.loads(line)
    except (ValueError, RecursionError):
        shot = None
    if not _is_shot(shot):
        raise SpiritLMError(f'{where}: a shot is {{"audio": FILE, "text": …}} or {{"speech": TOKENS, "text": …}}')
    if "speech" in shot:
        return Speech(tokens=shot["speech"]), shot["text"]
    if not is_file(str(folder / shot["audio"])):
        raise SpiritLMError(f"{where}: there is no file {folder / shot['audio']}")
    return Speech(audio=folder / shot["audio"]), shot["text"]


def _is_shot(shot: Any) -> bool:
    named = isinstance(shot, dict) and set(shot) in ({"text", "audio"}, {"text", "speech"})
    return named and all(isinstance(value, str) for value in shot.values())


def write_wav(path: Path, waveform: NDArray[np.float32]) -> Path:
    """Write float32[samples] in [-1, 1] at 16 kHz as 16-bit PCM, with the folder it is to lie in.

    Raises SpiritLMError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, encode_wav(waveform))
    except OSError as error:
        raise SpiritLMError(f"{path} cannot be written: {error}") from error
    return path


@contextmanager
def wav_stream(file: BinaryIO) -> Iterator[Callable[[NDArray[np.float32]], None]]:
    """Writes float32[samples] in [-1, 1] at 16 kHz to an open file as they come, as 16-bit PCM.

    Nobody knows how long it will be when the header is written: into a pipe goes one that promises the longest there
    can be, as other programs do, and players begin at once. A file on a disk is written at the end, with its length,
    unless something went wrong. Nothing is written before the first samples are.
    """
    encoder, kept = Encoder("wav"), [np.zeros(0, np.float32)]

    def write(waveform: NDArray[np.float32]) -> None:
        if file.seekable():
            kept.append(waveform)
        else:
            file.write(encoder.feed(waveform))
            file.flush()

    yield write
    if len(kept) > 1:
        file.write(encode_wav(np.concatenate(kept)))
        file.flush()
