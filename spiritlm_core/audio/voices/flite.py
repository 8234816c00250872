"""Flite: a process for each sentence, whose sound depends on text, voice and settings alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import numpy as np

from spiritlm_core.audio.voices.command import run_command
from spiritlm_core.audio.voices.sound import NothingHeardError, Sound
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.intake.speak.flite import command, version

_DRAWN = ("duration_stretch", "int_f0_target_mean")
_QUIET = 328  # of 32768: it says nothing of a text without words, but not quite in silence


def run_flite(text: str, voice: str, settings: Mapping[str, str]) -> Sound:
    """`text` in a voice.

    Raises:
        NothingHeardError: there is nothing to say in the text.
        SpiritLMError: Flite cannot be had, or is another version than that of `settings`.
    """
    if (wanted := settings.get("version", version())) != version():
        raise SpiritLMError(f"{text!r:.60} is to be said by Flite {wanted}, and this machine has Flite {version()}")
    drawn = [part for name in _DRAWN if name in settings for part in ("--setf", f"{name}={settings[name]}")]
    sound = run_command(shlex.join([*command(voice), *drawn, "-f", "{text_file}", "-o", "{wav}"]), text, voice)
    if np.abs(sound.samples.astype(np.int32)).max() < _QUIET:
        raise NothingHeardError(f"flite cannot say {text!r:.60} in the voice {voice!r}: nothing is heard")
    return sound
