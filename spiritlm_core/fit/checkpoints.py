"""Checkpoints of a fit: files that name their own digest, so that damage is seen and the one before serves."""

import pickle
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from spiritlm_core.errors import DamagedCheckpointError, is_machine_error
from spiritlm_core.files import file_sha256

Tell = Callable[[str], None]  # told what a person should read


def go_on_from(
    whole: Path | None, checkpoints: Sequence[Path], put_aside: Callable[[Path], object], tell: Tell
) -> None:
    """Put aside the `checkpoints` (the last one first) before `whole`, which are damaged, and `tell` so.

    Raises DamagedCheckpointError: none is whole, and there are some.
    """
    if whole is None and checkpoints:
        paths = " ".join(map(str, checkpoints))
        raise DamagedCheckpointError(f"every checkpoint is damaged; to begin from the start, delete {paths}")
    for damaged in takewhile(lambda path: path != whole, checkpoints):
        with suppress(FileNotFoundError):  # another process of the fit was quicker
            put_aside(damaged)
        tell(f"checkpoint {damaged} is damaged; going on from the one before, {whole and whole.name}")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a fit, in the last two files ``STEM-NUMBER-DIGEST.SUFFIX`` where `path` is ``STEM.SUFFIX``.

    A file gets its name when it is complete, so a kill leaves what there was, or one more.
    """

    path: Path

    def load(self, tell: Tell | None = None) -> dict[str, Any] | None:
        """The state saved last, on the CPU, or None if none was; a damaged file is passed over, and `tell` told so.

        Raises DamagedCheckpointError: all files are damaged.
        """
        files = self._files()
        states = ((file, _state(file)) for file in files)
        whole, state = next(((file, state) for file, state in states if state is not None), (None, None))
        go_on_from(whole, files, lambda file: file.rename(f"{file}.damaged"), tell or (lambda _: None))
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Add a file with `state`, tensors and plain values; of the older ones the last stays."""
        import torch

        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as opened:
                torch.save(state, opened)
        except RuntimeError as error:  # torch hides what the disk said
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        before = self._files()
        number = _named(before[0])[0] + 1 if before else 1
        name = f"{self.path.stem}-{number:08d}-{file_sha256(temporary)[:32]}{self.path.suffix}"
        temporary.replace(self.path.with_name(name))
        for file in before[1:]:
            file.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        """Those that there are, the last one first."""
        named = re.compile(rf"{re.escape(self.path.stem)}-\d{{8}}-[0-9a-f]{{32}}{re.escape(self.path.suffix)}")
        files = self.path.parent.glob(f"{self.path.stem}-*{self.path.suffix}")
        return sorted((file for file in files if named.fullmatch(file.name)), reverse=True)


def _state(file: Path) -> dict[str, Any] | None:
    """What it holds, if its content is what its name says, and plain values and tensors."""
    import torch

    try:
        if not file.is_file() or not file_sha256(file).startswith(_named(file)[1]):
            return None
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (FileNotFoundError, pickle.UnpicklingError, EOFError, RuntimeError) as error:
        if is_machine_error(error):
            raise
        return None
    return state


def _named(file: Path) -> tuple[int, str]:
    """Number and digest in the name of a checkpoint."""
    _, number, digest = file.stem.rsplit("-", 2)
    return int(number), digest
