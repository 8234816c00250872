"""Any program that reads a text and writes a WAV file; Flite, whose sound depends on text, voice and settings alone."""

import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

from spiritlm_core.audio.voices.sound import NothingHeardError, Sound
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.intake.speak.flite import command, version

_PATIENCE = 120.0  # seconds for a sentence


def run_command(command: str, text: str, voice: str) -> Sound:
    """The sound of `text` in the file that `command` writes.

    It has ``{text_file}`` or ``{text}``, ``{wav}`` and perhaps ``{voice}``, the `voice`; no shell reads it.

    Raises NothingHeardError: it writes a file without samples; SpiritLMError: it cannot be run, fails, or writes no
    sound.
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
    try:
        samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise SpiritLMError(f"{command!r} has written no sound to {{wav}}: {error}") from error
    if not len(samples):
        raise NothingHeardError("nothing is heard")
    return Sound(samples[:, 0].copy(), int(rate))


_DRAWN = ("duration_stretch", "int_f0_target_mean")
_QUIET = 328  # of 32768: it says nothing of a text without words, but not quite in silence


def run_flite(text: str, voice: str, settings: Mapping[str, str]) -> Sound:
    """`text` in a voice of Flite.

    Raises NothingHeardError: there is nothing to say in the text; SpiritLMError: flite cannot be had, or is another
    version than that of `settings`.
    """
    if (wanted := settings.get("version", version())) != version():
        raise SpiritLMError(f"{text!r:.60} is to be said by Flite {wanted}, and this machine has Flite {version()}")
    drawn = [part for name in _DRAWN if name in settings for part in ("--setf", f"{name}={settings[name]}")]
    sound = run_command(shlex.join([*command(voice), *drawn, "-f", "{text_file}", "-o", "{wav}"]), text, voice)
    if np.abs(sound.samples.astype(np.int32)).max() < _QUIET:
        raise NothingHeardError(f"flite cannot say {text!r:.60} in the voice {voice!r}: nothing is heard")
    return sound
