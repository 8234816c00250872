import numpy as np
import pytest

from spiritlm_core.audio.resample import add_noise, reverberate
from spiritlm_core.speech.quantizers.augment import augment, shift_pitch, stretch
from spiritlm_core.speech.quantizers.config import AugmentConfig
from tests.speech import synthetic

TIME = np.arange(24_000) / 16_000
TONE = (0.3 * np.sin(2 * np.pi * 440 * TIME)).astype(np.float32)


def loudest(waveform: np.ndarray) -> float:
    """Frequency of the strongest partial, in hertz."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.argmax(spectrum) / len(waveform) * 16_000)


def test_a_seed_says_everything() -> None:
    speech, config = synthetic.speech(0, 1.5), AugmentConfig(probability=0.9)
    for seed in range(3):
        first, second = (augment(speech, config, np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(first[0], second[0])
        assert first[0].dtype == np.float32
        assert len(first[0]) == round(len(speech) / first[1])
    other, _ = augment(speech, config, np.random.default_rng(9))
    assert len(other) != len(first[0]) or not np.array_equal(other, first[0])


@pytest.mark.parametrize("tempo", [0.8, 1.25])
def test_stretching_changes_the_tempo_and_not_the_pitch(tempo: float) -> None:
    stretched = stretch(TONE, tempo)
    assert len(stretched) == round(len(TONE) / tempo)
    assert loudest(stretched) == pytest.approx(440, abs=1)
    assert np.sqrt((stretched**2).mean()) == pytest.approx(np.sqrt((TONE**2).mean()), rel=0.05)
    halves = np.concatenate([TONE, np.zeros_like(TONE)])  # what comes first is still first, and as long as it should be
    envelope = np.abs(stretch(halves, tempo))
    assert np.flatnonzero(envelope > 0.05).max() == pytest.approx(len(TONE) / tempo, abs=500)


@pytest.mark.parametrize("semitones", [-3.0, 4.0])
def test_shifting_changes_the_pitch_and_not_the_length(semitones: float) -> None:
    shifted = shift_pitch(TONE, semitones)
    assert len(shifted) == len(TONE)
    assert loudest(shifted) == pytest.approx(440 * 2 ** (semitones / 12), rel=0.01)


@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
def test_noise_is_as_loud_as_asked(colour: float) -> None:
    rng = np.random.default_rng(0)
    noise = add_noise(TONE, 10.0, colour, rng) - TONE
    assert 10 * np.log10((TONE**2).mean() / (noise**2).mean()) == pytest.approx(10.0, abs=0.1)
    power = np.abs(np.fft.rfft(noise)) ** 2
    low, high = power[200:1000].mean(), power[-2000:].mean()
    assert bool(low > 3 * high) == (colour > 0)


def test_silence_gets_finite_noise() -> None:
    noisy = add_noise(np.zeros(1280, np.float32), 0.0, 1.0, np.random.default_rng(0))
    assert np.isfinite(noisy).all()
    assert 0 < np.abs(noisy).max() < 1e-2


def test_a_room_answers_after_the_sound() -> None:
    click = np.zeros(8000, np.float32)
    click[1000] = 1.0
    heard = reverberate(click, 0.2, np.random.default_rng(0))
    assert np.abs(heard[:1000]).max() < 1e-6
    assert heard[1000] == pytest.approx(1.0, abs=1e-3)
    assert (heard[1001:2000] ** 2).sum() > 30 * (heard[4000:5000] ** 2).sum() > 0
