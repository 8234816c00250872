"""An utterance by its address: spoken by its engine, 16 kHz, with what is done to the sound."""

import atexit
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from spiritlm_core.audio.codec import to_float32
from spiritlm_core.audio.resample import add_noise, at_loudness, by_libav, limit_band, reverberate
from spiritlm_core.audio.samples import Waveform
from spiritlm_core.audio.voices.command import run_command, run_flite
from spiritlm_core.audio.voices.server import Speaker
from spiritlm_core.audio.voices.sound import NothingHeardError, Sound, Time
from spiritlm_core.errors import Rejection
from spiritlm_core.intake.speak.utterance import Utterance, parse_utterance
from spiritlm_core.intake.speak.voices import piper_model
from spiritlm_core.lake.schema import SAMPLE_RATE


def speak(utterance: Utterance | str) -> tuple[Waveform, Sequence[Time | None]]:
    """Speak an utterance, or the one of an address.

    Returns float32[T] in [-1, 1] at 16 kHz, and when each word of the text was said, in seconds, where the engine tells
    it. Raises Rejection: there is nothing to say in the text; SpiritLMError: the engine is not installed, or fails.
    """
    spoken = parse_utterance(utterance) if isinstance(utterance, str) else utterance
    try:
        sound = _said(spoken)
    except NothingHeardError as problem:
        raise Rejection(str(problem)) from problem
    waveform = np.concatenate(list(by_libav(iter([(to_float32(sound.samples), sound.rate)]))))
    silence = float(spoken.settings.get("silence", 0.0))
    waveform = _changed(np.pad(waveform, round(silence * SAMPLE_RATE)), spoken)
    return waveform, [word and (word[0] + silence, word[1] + silence) for word in sound.words]


def _said(utterance: Utterance) -> Sound:
    settings = dict(utterance.settings)
    if utterance.engine == "command":
        return run_command(settings["command"], utterance.text, utterance.voice)
    if utterance.engine == "flite":
        return run_flite(utterance.text, utterance.voice, settings)
    if utterance.engine == "piper":
        speaker = _speaker("piper", "piper", str(piper_model(settings["model"])[0]))
    else:
        speaker = _speaker("espeak", "espeakng_loader")
    return speaker.say(utterance.text, utterance.voice, settings)


@lru_cache(maxsize=8)
def _speaker(engine: str, library: str, *loaded: str) -> Speaker:
    """One of a kind in a process."""
    speaker = Speaker(engine, library, *loaded)
    atexit.register(speaker.close)
    return speaker


def _changed(waveform: Waveform, utterance: Utterance) -> Waveform:
    """Room, noise, bandwidth and loudness, in the order in which they come on the way to an ear."""
    drawn = {name: float(utterance.settings[name]) for name in _EFFECTS if name in utterance.settings}
    rng = np.random.default_rng(int(utterance.digest[:16], 16))
    if drawn.get("room"):
        waveform = reverberate(waveform, drawn["room"], rng)
    if "noise" in drawn:
        waveform = add_noise(waveform, drawn["noise"], rng.uniform(0, 2), rng)
    if "band" in drawn:
        waveform = limit_band(waveform, int(drawn["band"]))
    return at_loudness(waveform, drawn["loudness"]) if "loudness" in drawn else waveform


_EFFECTS = ("room", "noise", "band", "loudness")
