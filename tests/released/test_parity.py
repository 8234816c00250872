"""Unit streams and strings equal those of the released tokenizers on seeded checkpoints."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
import torch

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from spiritlm_core.speech.types import Units
from spiritlm_core.tokens.speech import Streams
from tests.support.released import PARITY, golden

STREAMS = ("hubert", "pitch", "style")
NEAR_TIES = dict(zip(STREAMS, ("hubert_logit_margin_below_0.005", "pitch_distance_margin_below_0.01",
                               "style_logit_margin_below_0.005"), strict=True))  # fmt: skip
EVERY = pytest.mark.parametrize(
    ("preset", "variant"), [(p, v) for p in ("tiny", "alt") for v in ("base", "expressive")]
)
Load = Callable[[str, str], SpeechTokenizer]


def streams_of(variant: str) -> tuple[str, ...]:
    return STREAMS[:1] if variant == "base" else STREAMS


@EVERY
def test_every_clip(tokenizer: Load, preset: str, variant: str) -> None:
    loaded = tokenizer(preset, variant)
    for name, case in golden(preset, "units").items():
        units = loaded.encode(PARITY / "wavs" / case["file"])
        exact = True
        for stream in streams_of(variant):
            found, want = getattr(units, stream), np.array(case[stream])
            assert found.shape == want.shape, (name, stream)
            different = set(np.flatnonzero(found != want).tolist())
            exact &= not different
            assert different <= {frame for frame, _ in case["diagnostics"][NEAR_TIES[stream]]}, (name, stream)
        assert variant == "expressive" or (units.pitch is None and units.style is None)
        if exact:
            assert loaded.to_string(units) == case[f"string_{variant}"], name
        for key, option in ((f"string2units_{variant}", False), (f"string2units_{variant}_dup", True)):
            if key in case:
                assert_equal(SpeechTokenizer.from_string(case[f"string_{variant}"], duplicate_pitch=option), case[key])


def edge_audio(name: str) -> object:
    if name.split(":", maxsplit=1)[0] in {"tensor_1d", "tensor_1xT", "numpy_1d", "gain_0.1"}:
        clip = "allison_hello-world" if name.startswith("gain") else "allison_is"
        samples = soundfile.read(PARITY / "wavs" / f"{clip}.wav", dtype="float32")[0]
        made = {"numpy_1d": samples, "gain_0.1": torch.from_numpy(samples) * 0.1}
        return made.get(name, torch.from_numpy(samples)[None] if name == "tensor_1xT" else torch.from_numpy(samples))
    if name in {"empty_tensor", "three_channels"}:
        return torch.zeros(0) if name == "empty_tensor" else torch.zeros(3, 16_000)
    return PARITY / "wavs" / f"{name.split(':', maxsplit=1)[0]}.wav"


def check_edges(loaded: SpeechTokenizer, preset: str, variant: str, *, long: set[str]) -> None:
    checked = 0
    for key, case in golden(preset, "edges").items():
        kind, name = key.split(":", 1)
        if kind != variant or "units" not in case or (name.startswith("long") and name not in long):
            continue
        channel = int(name[-1]) if ":channel_" in name else None
        units = loaded.encode(edge_audio(name), channel=channel)
        for stream, want in case["units"].items():
            assert same(want, getattr(units, stream).tolist()), (name, stream)
        assert same(case["string"], loaded.to_string(units)), name
        checked += 1
    assert checked >= 13


def same(want: list | str | dict, found: list | str) -> bool:
    """Equal, or of the same length and digest where the golden holds no more than these."""
    if not isinstance(want, dict):
        return want == found
    text = found if isinstance(found, str) else " ".join(map(str, found))
    size, digest = want.get("count", want.get("length")), want.get("sha256", want.get("sha256_of_space_joined"))
    return (len(found), hashlib.sha256(text.encode()).hexdigest()) == (size, digest)


@EVERY
def test_edge_cases(tokenizer: Load, preset: str, variant: str) -> None:
    long = {"base": {"long_100s_plus_1000", "long_102s"}, "expressive": {"long_102s"}}[variant]
    check_edges(tokenizer(preset, variant), preset, variant, long=long if preset == "tiny" else set())


@pytest.mark.slow
@EVERY
def test_edge_cases_over_100_seconds(tokenizer: Load, preset: str, variant: str) -> None:
    check_edges(tokenizer(preset, variant), preset, variant, long={"long_100s_plus_1000", "long_102s"})


@EVERY
def test_where_the_released_code_crashes(tokenizer: Load, preset: str, variant: str) -> None:
    """NumPy arrays and silence have units; more than two channels are refused by name."""
    loaded, crashes = tokenizer(preset, variant), {
        key.split(":", 1)[1]
        for key, case in golden(preset, "edges").items()
        if key.startswith(variant) and "reference_error" in case
    }  # fmt: skip
    assert crashes <= {"numpy_1d", "three_channels", "edge_silence_1s"}
    tensor, array = (loaded.encode(edge_audio(name)) for name in ("tensor_1d", "numpy_1d"))
    assert all(np.array_equal(getattr(tensor, s), getattr(array, s)) for s in streams_of(variant))
    silence = loaded.encode(edge_audio("edge_silence_1s"))
    assert [len(getattr(silence, s)) for s in streams_of(variant)] == [24, 12, 1][: len(streams_of(variant))]
    with pytest.raises(SpiritLMError, match="3 channels, at most 2"):
        loaded.encode(edge_audio("three_channels"))


def test_batched_equals_one_at_a_time(tokenizer: Load) -> None:
    waves = [soundfile.read(PARITY / "wavs" / c["file"], dtype="float32")[0] for c in golden("tiny", "units").values()]
    waves = [waves[i] for i in np.random.default_rng(3).permutation(len(waves))] + [np.zeros(500, np.float32)]
    for preset in ("tiny", "alt"):
        loaded = tokenizer(preset, "expressive")
        together, alone = loaded.encode_batch(waves), [loaded.encode(wave) for wave in waves]
        for a, b in zip(together, alone, strict=True):
            assert all(np.array_equal(getattr(a, stream), getattr(b, stream)) for stream in STREAMS)


def numbers(units: dict, name: str) -> list[int] | None:
    return [int(unit) for unit in units[name].split()] if name in units else None


def assert_equal(found: Streams, want: dict) -> None:
    for name in STREAMS:
        got = getattr(found, name)
        assert (None if got is None else got.tolist()) == numbers(want, name), name


def assert_streams_equal(a: Streams, b: Streams) -> None:
    for name in STREAMS:
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None and other is None) or np.array_equal(one, other)


def as_units(units: dict) -> Units:
    hubert, pitch, style = (numbers(units, name) for name in STREAMS)
    return Units(np.array(hubert, np.int16), np.array(pitch, np.int8), np.array(style, np.int8))


@EVERY
def test_units_to_strings(tokenizer: Load, preset: str, variant: str) -> None:
    loaded, cases = tokenizer(preset, variant), golden(preset, "strings")
    for case in cases["units_to_string"]:
        assert loaded.to_string(as_units(case["units"])) == case[variant]
    if variant == "expressive":
        for name, options in {
            "no_hubert_dedup": {"collapse_hubert": False},
            "no_pitch_dedup": {"collapse_pitch": False},
            "style_dedup": {"collapse_style": True},
        }.items():
            case = cases["units_to_string_options"][name]
            assert loaded.to_string(as_units(case["units"]), **options) == case["string"]


@pytest.mark.parametrize("preset", ["tiny", "alt"])
def test_strings_to_units(preset: str) -> None:
    cases, checked = golden(preset, "strings"), 0
    for case in cases["string_to_units"]:
        if "\n" in case["string"] or "junk" in case["string"]:
            continue  # the released code misreads these, see below
        found = SpeechTokenizer.from_string(case["string"], duplicate_pitch=case["duplicate"], seed=0)
        assert_equal(found, case["base"])
        assert_equal(found, case["expressive"])
        checked += 1
    assert checked >= 24
    for case in cases["pitch_without_style_picks_at_random"]:
        assert_equal(SpeechTokenizer.from_string(case["string"], seed=case["python_random_seed"]), case["units"])


def test_strings_that_the_released_code_misreads() -> None:
    assert SpeechTokenizer.from_string("[Hu1]\n[Hu2]").hubert.tolist() == [1, 2]
    found = SpeechTokenizer.from_string("junk[Hu12][Hx3][Hu][HuA][Pi3]tail[Hu99999999]")
    assert_equal(found, {"hubert": "12", "pitch": "3", "style": "68"})
    assert_equal(SpeechTokenizer.from_string("[Pi1][Pi2]", duplicate_pitch=True), dict.fromkeys(STREAMS, ""))
