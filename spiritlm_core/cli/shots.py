"""Solved examples from a file of JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spiritlm_core.cli.files import is_file


def read_shots(path: Path, output: str) -> list[tuple[Any, Any]]:
    """Pairs of question and answer, the answer in `output`, text or speech.

    Each line is ``{"audio": FILE, "text": …}`` or ``{"speech": TOKENS, "text": …}``; a file is relative to `path`.

    Raises:
        SpiritLMError: it cannot be read, or a line is neither.
    """
    from spiritlm_core.errors import SpiritLMError
    from spiritlm_core.lm.generate.content import Text

    if output.lower() not in ("text", "speech"):
        raise SpiritLMError("--shots needs --output text or --output speech, which says what they answer")
    pairs: list[tuple[Any, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpiritLMError(f"--shots {path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        spoken, written = _shot(line, path.parent, f"{path}:{number}")
        pairs.append((spoken, Text(written)) if output.lower() == "text" else (Text(written), spoken))
    return pairs


def _shot(line: str, folder: Path, where: str) -> tuple[Any, str]:
    from spiritlm_core.errors import SpiritLMError
    from spiritlm_core.lm.generate.content import Speech

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
