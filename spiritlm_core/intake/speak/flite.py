"""Flite, a small synthesizer whose voices are made of recordings of people (Black and Lenzo 2001).

Its voices, all English, follow the CMU ARCTIC databases (Kominek and Black 2004) but for kal, an older diphone voice.
"""

import platform
import re
import shlex
import shutil
import subprocess
from functools import lru_cache

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.files import cache_folder
from spiritlm_core.intake.debian import unpacked

PITCH = {"slt": 170.0, "rms": None, "awb": 130.0, "kal16": 100.0, "kal": 100.0}
"""Voice → its mean pitch in hertz; None for the one that keeps its own, whatever it is told. kal is kal16 at 8 kHz."""
_PACKAGES = ("flite", "libflite1")
_WHO = "engine flite (a program `flite` on the PATH would do)"


def command(voice: str) -> list[str]:
    """How Flite is started, with a voice.

    Raises SpiritLMError: it is not on the PATH, nor can its Debian packages be had; or it has no such voice.
    """
    started = _program()
    known = _said(started, "-lv", r"available:(.*)").split()  # it takes another voice without a word where it lacks one
    if voice not in known:
        raise SpiritLMError(f"{shlex.join(started)} has no voice {voice!r}, but {', '.join(sorted(known))}")
    return [*started, "-voice", voice]


def version() -> str:
    """Which Flite it is, as it says itself: another one may sound otherwise. Raises SpiritLMError."""
    return _said(_program(), "--version", r"version: (?:flite-)?(\S+)")


def _program() -> tuple[str, ...]:
    """The one on the PATH, else a copy of Debian's, whose libraries lie beside it."""
    if installed := shutil.which("flite"):
        return (installed,)
    tree = unpacked(_PACKAGES, cache_folder() / "flite" / platform.machine(), _WHO)
    libraries = next(tree.glob("usr/lib/*/libflite.so.*"), tree).parent
    return ("env", f"LD_LIBRARY_PATH={libraries}", str(tree / "usr/bin/flite"))


@lru_cache(maxsize=8)
def _said(started: tuple[str, ...], option: str, pattern: str) -> str:
    """The part in brackets of what the program answers to an option."""
    done = subprocess.run([*started, option], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    if not (found := re.search(pattern, done.stdout)):
        said = " ".join((done.stderr or done.stdout).split())[-300:]
        raise SpiritLMError(f"{shlex.join(started)} {option} is not answered: {said or 'it said nothing'}")
    return found[1]
