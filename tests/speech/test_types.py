import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spiritlm_core.speech.config import CopiesConfig, UnitsConfig
from spiritlm_core.speech.grid import CHUNK, SHORTEST, hop_of, pitch_count, style_count, unit_count
from spiritlm_core.speech.pretraining.config import PAPER_CONVOLUTIONS, HubertConfig, PerturbConfig
from spiritlm_core.speech.quantizers.config import MOST_UNITS, QuantizerConfig
from spiritlm_core.speech.types import by_frame, chunks


@given(st.integers(SHORTEST, CHUNK))
def test_hubert_count_is_that_of_the_paper_convolutions(samples: int) -> None:
    frames = samples
    for kernel, stride in zip(PAPER_CONVOLUTIONS["conv_kernels"], PAPER_CONVOLUTIONS["conv_strides"], strict=True):
        frames = (frames - kernel) // stride + 1
    assert unit_count(samples) == frames


@pytest.mark.parametrize(
    ("samples", "hubert", "pitch", "style"),
    [
        (0, 0, 0, 0),
        (1279, 0, 0, 0),
        (1280, 1, 1, 1),
        (16_000, 24, 12, 1),
        (16_001, 24, 12, 2),
        (CHUNK, 2499, 1250, 100),
    ],
)
def test_counts(samples: int, hubert: int, pitch: int, style: int) -> None:
    assert (unit_count(samples), pitch_count(samples), style_count(samples)) == (hubert, pitch, style)


@given(st.integers(0, 3 * CHUNK))
def test_chunks_lose_at_most_a_tail_too_short_for_a_unit(samples: int) -> None:
    waveform = np.zeros(samples, np.float32)
    lengths = [len(piece) for piece in chunks(waveform)]
    assert all(SHORTEST <= length <= CHUNK for length in lengths)
    assert 0 <= samples - sum(lengths) < SHORTEST


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv_strides": (80, 4, 1)}, "640"),
        ({"conv_kernels": (240, 7)}, "one entry per convolution"),
        ({"conv_kernels": (400, 7, 1)}, "720"),
        ({"hidden_size": 33}, "multiple of heads"),
        ({"clusters": (10, 10, 10)}, "one entry per iteration"),
        ({"cluster_layer": 9}, "above the last"),
        ({"colour": 1}, "colour"),
    ],
)
def test_inconsistent_hubert_config_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HubertConfig(**change)


def test_paper_front_end_is_accepted() -> None:
    assert HubertConfig(**PAPER_CONVOLUTIONS).conv_kernels[0] == 10


def test_a_unit_fits_its_column() -> None:
    assert QuantizerConfig(units=MOST_UNITS).units <= np.iinfo(np.int16).max + 1
    with pytest.raises(ValidationError):
        QuantizerConfig(units=MOST_UNITS + 1)


@given(st.integers(0, 2 * CHUNK + 5000))
def test_units_at_12_5_hertz_are_two_frames_each_piece_by_piece(samples: int) -> None:
    lengths = [len(piece) for piece in chunks(np.zeros(samples, np.float32))]
    units = np.arange(sum(unit_count(length, 1280) for length in lengths))
    frames = by_frame(units, samples, 1280)
    assert len(frames) == sum(map(unit_count, lengths))
    assert np.array_equal(np.unique(frames), units)
    assert np.array_equal(by_frame(frames, samples, 640), frames)
    if samples > 5000:
        assert hop_of(len(units), samples) == 1280
        assert hop_of(len(frames), samples) == 640


def test_the_encoder_has_two_names_and_the_rate_moves_no_older_key() -> None:
    assert UnitsConfig().given_encoder is None
    assert UnitsConfig(hubert={"model": "hf://a/b"}).given_encoder == "hf://a/b"
    with pytest.raises(ValidationError, match="encoder"):
        UnitsConfig(hubert={"model": "hf://a/b"}, encoder="hf://c/d")
    assert UnitsConfig().quantizer_stage.key() == QuantizerConfig().key()
    assert UnitsConfig(rate=12.5).quantizer_stage.hop == 1280
    with pytest.raises(ValidationError, match="neither 25 nor 12.5"):
        UnitsConfig(rate=50)


def test_imports_are_cheap() -> None:
    modules = (
        "config",
        "types",
        "stage",
        "quantizers.kmeans",
        "fits",
    )
    heavy = ("torch", "transformers", "sklearn", "torchfcpe", "scipy")
    imports = "; ".join(f"import spiritlm_core.speech.{module}" for module in modules)
    code = f"import sys; {imports}; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = "import sys, spiritlm_core.speech.config; print('numpy' in sys.modules, 'pyarrow' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False False\n"


@pytest.mark.parametrize("config", [CopiesConfig, PerturbConfig])
def test_the_lowest_of_a_range_stands_first(config: type[CopiesConfig | PerturbConfig]) -> None:
    assert config(snr=(5.0, 5.0)).snr == (5.0, 5.0)
    with pytest.raises(ValidationError, match="20 is greater than 5: write the lower bound first"):
        config(snr=(20.0, 5.0))
