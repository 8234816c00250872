"""F0 figures of pitch models whose errors are known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from spiritlm_core.evaluate.units.voice import f0_figures
from spiritlm_core.speech.pitch.coder import PitchCoder
from spiritlm_core.speech.pitch.config import PitchArchitecture, PitchBlocks
from spiritlm_core.speech.pitch.f0 import Melody

SAMPLES = 16_000


def _config(scale="octaves", relative=True, interpolated=True):
    blocks = PitchBlocks(width=4, depth=0)
    settings = {"scale": scale, "relative": relative, "interpolated": interpolated}
    return PitchArchitecture(codes=2, embedding=2, encoder=blocks, decoder=blocks, **settings)


@dataclass
class Remembering:
    """A coder whose decoder gives back what the encoder was given, shifted, and wrong about some voicing."""

    config: PitchArchitecture
    shift: float = 0.0
    flip: int = 0
    given: list[np.ndarray] = field(default_factory=list)

    contour = PitchCoder.contour

    def encode(self, contour):
        self.given.append(contour)
        return np.zeros(contour.shape[1] // 16, np.int8)

    def reconstruct(self, units):
        level, voiced = self.given[-1]
        voicing = voiced.copy()
        voicing[: self.flip] = 1 - voicing[: self.flip]
        return np.stack([level + self.shift, voicing])


def _melody():
    count = SAMPLES // 160 + 1
    voiced = np.arange(count) % 20 >= 5
    return Melody(np.linspace(100, 200, count).astype(np.float32), voiced)


@pytest.mark.parametrize("scale", ["octaves", "hertz"])
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("interpolated", [True, False])
def test_a_perfect_model_has_no_error_whatever_its_scale(scale, relative, interpolated):
    figures = f0_figures(Remembering(_config(scale, relative, interpolated)), [(_melody(), SAMPLES)])
    assert figures["f0_rmse_cents"] == pytest.approx(0, abs=0.1)
    assert figures["f0_spread_cents"] == pytest.approx(345, rel=0.1)  # an octave, more or less evenly: 1200 / sqrt(12)
    assert figures["voicing_error"] == (0.0 if scale == "octaves" else None)


def test_errors_come_out_in_cents_and_shares():
    figures = f0_figures(Remembering(_config(), shift=0.5, flip=48), [(_melody(), SAMPLES)])
    assert figures["f0_rmse_cents"] == pytest.approx(600, abs=0.1)
    assert figures["voicing_error"] == pytest.approx(48 / 192, abs=1e-4)
    hertz = f0_figures(Remembering(_config("hertz"), shift=50.0), [(_flat(100.0), SAMPLES)])
    assert hertz["f0_rmse_cents"] == pytest.approx(1200 * np.log2(1.5), abs=0.1)


def _flat(hertz):
    count = SAMPLES // 160 + 1
    return Melody(np.full(count, hertz, np.float32), np.ones(count, bool))


def test_unvoiced_and_short_speech():
    count = SAMPLES // 160 + 1
    silent = Melody(np.zeros(count, np.float32), np.zeros(count, bool))
    figures = f0_figures(Remembering(_config()), [(silent, SAMPLES)])
    assert figures["f0_rmse_cents"] is None
    assert figures["voicing_error"] == 0.0
    both = f0_figures(Remembering(_config(), shift=0.1), [(silent, SAMPLES), (_melody(), SAMPLES)])
    assert both["f0_rmse_cents"] == pytest.approx(120, abs=0.1)
    assert "missing" in f0_figures(Remembering(_config()), [])
