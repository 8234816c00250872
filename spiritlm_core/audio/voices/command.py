"""Any program that reads a text and writes a WAV file."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from pathlib import Path

from spiritlm_core.audio.voices.sound import NothingHeardError, Sound
from spiritlm_core.errors import SpiritLMError

_PATIENCE = 120.0  # seconds for a sentence


def run_command(command: str, text: str, voice: str) -> Sound:
    """The sound of the file that `command` writes.

    Args:
        command: with ``{text_file}`` or ``{text}``, ``{wav}`` and perhaps ``{voice}``; no shell reads it.
        text: what is said.
        voice: what ``{voice}`` stands for.

    Raises:
        NothingHeardError: it writes a file without samples.
        SpiritLMError: it cannot be run, fails, or writes no sound.
    """
    with tempfile.TemporaryDirectory(prefix="spiritlm-") as folder:
        places = {"text_file": f"{folder}/text.txt", "wav": f"{folder}/sound.wav", "text": text, "voice": voice}
        Path(places["text_file"]).write_text(text + "\n", encoding="utf-8")
        parts = [_filled(part, places) for part in shlex.split(command)]
        try:
            done = subprocess.run(parts, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SpiritLMError(f"{command!r} cannot be run: {error}") from error
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-300:]
            raise SpiritLMError(f"{command!r} ended with status {done.returncode}: {said or 'it said nothing'}")
        return _read(places["wav"], command)


def _filled(part: str, places: dict[str, str]) -> str:
    for name, value in places.items():
        part = part.replace(f"{{{name}}}", value)
    return part


def _read(path: str, command: str) -> Sound:
    import soundfile

    try:
        samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise SpiritLMError(f"{command!r} has written no sound to {{wav}}: {error}") from error
    if not len(samples):
        raise NothingHeardError("nothing is heard")
    return Sound(samples[:, 0].copy(), int(rate))
