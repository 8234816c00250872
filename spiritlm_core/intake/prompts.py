"""Packages of telephone prompts, from Debian: real speech without a download site.

An item is named ``prompts://LANG/ID``, so that every machine that works on it can fetch the package itself.
"""

from __future__ import annotations

import gzip
from pathlib import Path

from spiritlm_core.errors import SourceError
from spiritlm_core.files import cache_folder
from spiritlm_core.intake.debian import unpacked


def prompt_path(uri: str) -> Path:
    """The local file of ``prompts://LANG/ID``, fetched when it is not there."""
    language, _, name = uri.removeprefix("prompts://").partition("/")
    return sounds_of(fetch(language)) / f"{name}.g722"


def fetch(language: str) -> Path:
    """The folder with the unpacked packages of a language. Raises SourceError if they cannot be had."""
    packages = (f"asterisk-core-sounds-{language}-g722", f"asterisk-core-sounds-{language}")
    return unpacked(packages, cache_folder() / "prompts" / language, f"source prompts:{language}")


def sounds_of(tree: Path) -> Path:
    """The folder of the one voice in a package."""
    folders = sorted(path for path in tree.glob("usr/share/asterisk/sounds/*_*") if next(path.rglob("*.g722"), None))
    if not folders:
        raise SourceError(f"{tree} holds no prompts: delete it, and it will be fetched again")
    return folders[0]


def transcripts_of(tree: Path, language: str) -> dict[str, str]:
    """Prompt ID to transcript; ``;`` starts a comment."""
    files = sorted(tree.glob(f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-*.txt*"))
    if not files:
        raise SourceError(f"{tree} holds no transcripts: delete it, and it will be fetched again")
    data = files[0].read_bytes()
    lines = (gzip.decompress(data) if files[0].suffix == ".gz" else data).decode("utf-8-sig").splitlines()
    pairs = (line.partition(":") for line in lines if ":" in line and not line.lstrip().startswith(";"))
    return {name.strip(): text.strip() for name, _, text in pairs}
