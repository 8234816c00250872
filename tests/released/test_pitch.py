"""The kinds of pitch model that released files can describe beyond those of the goldens."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.speech.pitch.coder import PitchCoder
from spiritlm_core.speech.pitch.f0 import Melody
from spiritlm_core.speech.released.pitch import F0Config

BLOCKS = {"output_emb_width": 6, "downs_t": [4], "strides_t": [2], "width": 8, "depth": 3, "dilation_growth_rate": 3}
SAMPLES = 16_000


def config(features: str = "f0_interp,vuv", **encoder: object) -> F0Config:
    return F0Config.model_validate(
        {
            "features": features,
            "encoder_params": {**BLOCKS, **encoder},
            "decoder_params": BLOCKS,
            "vq_params": {"l_bins": 5, "emb_width": 6},
        }
    )


def melody() -> Melody:
    voiced = np.arange(SAMPLES // 160 + 1) % 10 < 6
    return Melody(np.linspace(100, 200, len(voiced)).astype(np.float32), voiced)


@pytest.mark.parametrize("features", ["f0_interp,vuv", "f0,vuv", "norm_f0_interp,vuv", "norm_f0,vuv"])
@pytest.mark.parametrize("speaker_norm", [True, None])
def test_inputs_are_in_hertz(features: str, speaker_norm: bool | None) -> None:
    described = config(features).model_copy(update={"speaker_norm": speaker_norm})
    f0, voicing = PitchCoder(described.architecture).contour(melody(), SAMPLES)
    raw, voiced = melody().stretched(SAMPLES)
    want = raw - raw[voiced].mean() if speaker_norm or "norm" in features else raw
    want = want if "interp" in features else want * voiced
    assert len(f0) == SAMPLES // 80 + 1
    np.testing.assert_allclose(f0, want, atol=1e-4)
    np.testing.assert_array_equal(voicing, voiced)


@pytest.mark.parametrize("features", ["f0_interp,vuv", "norm_f0,vuv"])
def test_a_piece_without_voice_has_units(features: str) -> None:
    coder = PitchCoder(config(features).architecture).eval()
    frames = SAMPLES // 160 + 1
    contour = coder.contour(Melody(np.zeros(frames, np.float32), np.zeros(frames, bool)), SAMPLES)
    assert not contour.any()
    assert coder.encode(contour).shape == ((SAMPLES // 80 + 1) // 16,)


@pytest.mark.parametrize(
    "encoder",
    [
        {"downs_t": [2], "strides_t": [4]},
        {"downs_t": [[1, 1, 1]], "strides_t": [[2, 1, 8]]},
        {"output_emb_width": 12},
        {"m_conv": 0.5, "dilation_cycle": 2, "res_scale": True},
        {"depth": 0},
    ],
)
def test_other_shapes_encode_and_are_stored(tmp_path: Path, encoder: dict) -> None:
    torch.manual_seed(0)
    coder = PitchCoder(config(**encoder).architecture).eval()
    coder.codebook = torch.randn_like(coder.codebook)
    contour = coder.contour(melody(), SAMPLES)
    units = coder.encode(contour)
    assert units.shape == ((SAMPLES // 80 + 1) // 16,)
    assert coder.reconstruct(units).shape == (2, 16 * len(units))
    coder.save(tmp_path)
    np.testing.assert_array_equal(PitchCoder.load(tmp_path).encode(contour), units)


@given(st.integers(1280, 1_600_000))
def test_stretching_is_that_of_torch(samples: int) -> None:
    frames = samples // 160 + 1
    f0 = np.arange(frames, dtype=np.float32)
    found, _ = Melody(f0, np.ones(frames, bool)).stretched(samples)
    want = torch.nn.functional.interpolate(torch.from_numpy(f0)[None, None], size=samples // 80 + 1, mode="nearest")
    np.testing.assert_array_equal(found, want[0, 0].numpy())
