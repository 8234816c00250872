from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.audio.codec import decode_flac
from spiritlm_core.errors import ModelReferenceError, RecipeError
from spiritlm_core.speech.extractor import UnitExtractor
from spiritlm_core.speech.grid import CHUNK, pitch_count, style_count, unit_count
from spiritlm_core.speech.quantizers.kmeans import KMeans
from spiritlm_core.speech.stage import UNITS, UnitsStage, grouped
from spiritlm_core.speech.types import Units
from tests.speech.models import CONFIG, small
from tests.speech.synthetic import row, speech, table

LENGTHS = (0, 100, 1279, 1280, 1919, 1920, 15_999, 16_000, 20_111)


@pytest.fixture(scope="module")
def extractor(models: dict[str, Path]) -> UnitExtractor:
    return UnitExtractor(models, CONFIG.stage(expressive=True).sizes)


def equal(one: Units, other: Units) -> bool:
    return all(np.array_equal(getattr(one, s), getattr(other, s)) for s in ("hubert", "pitch", "style"))


def test_counts_and_ranges(extractor: UnitExtractor) -> None:
    for length, units in zip(LENGTHS, extractor.encode([speech(3, 2.0)[:n] for n in LENGTHS]), strict=True):
        assert units.pitch is not None
        assert units.style is not None
        assert len(units.hubert) == unit_count(length)
        assert len(units.pitch) == pitch_count(length)
        assert len(units.style) == style_count(length)
        assert (units.hubert.dtype, units.pitch.dtype, units.style.dtype) == (np.int16, np.int8, np.int8)
        assert all((s >= 0).all() for s in (units.hubert, units.pitch, units.style))
        assert (units.hubert < 20).all()
        assert (units.pitch < 16).all()
        assert (units.style < 4).all()


@pytest.mark.parametrize("batch_frames", [0, 400])
def test_batch_equals_one_at_a_time(
    extractor: UnitExtractor, batch_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [speech(i, 0.4 + 0.11 * i) for i in range(5)]
    alone = [extractor.encode([clip])[0] for clip in clips]
    monkeypatch.setattr(type(extractor.encoder), "batch_frames", batch_frames)
    assert all(map(equal, extractor.encode(clips), alone))
    assert all(map(equal, extractor.encode(clips[::-1]), alone[::-1]))


def test_long_audio_is_encoded_in_pieces(models: dict[str, Path]) -> None:
    base = UnitExtractor({role: models[role] for role in ("hubert", "quantizer")})
    waveform = np.tile(speech(0, 25.0), 5)[: CHUNK + 30_000]
    whole, first, second = base.encode([waveform, waveform[:CHUNK], waveform[CHUNK:]])
    assert np.array_equal(whole.hubert, np.concatenate([first.hubert, second.hubert]))
    assert len(whole.hubert) == 2499 + unit_count(30_000)
    assert len(base.encode([waveform[: CHUNK + 1000]])[0].hubert) == 2499


def test_units_tell_sounds_apart(extractor: UnitExtractor, audio: pa.Table, summaries: dict[str, dict]) -> None:
    assert summaries["quantizer"]["units_used"] == 20
    assert summaries["quantizer"]["perplexity"] > 10
    clip = decode_flac(audio["audio"][11].as_py())
    (units,) = extractor.encode([clip])
    assert len(np.unique(units.hubert)) > 5


def test_silence_has_units(extractor: UnitExtractor) -> None:
    (units,) = extractor.encode([np.zeros(20_000, np.float32)])
    assert units.pitch is not None
    assert (len(units.hubert), len(units.pitch)) == (unit_count(20_000), pitch_count(20_000))
    assert len(np.unique(units.pitch[2:-2])) == 1


def stage_on(models: dict[str, Path], *roles: str) -> UnitsStage:
    stage = UnitsStage(CONFIG.stage(expressive="pitch" in roles), {role: models[role] for role in roles})
    stage.setup()
    return stage


def columns(audio: pa.Table) -> pa.Table:
    return audio.select(list(UnitsStage.inputs[0].columns or ()))


def test_every_row_stays_a_row(models: dict[str, Path], audio: pa.Table) -> None:
    upstream = {**row("up", speech(1, 1.0)), "audio": None, "reject_stage": "audio", "reject_reason": "noise"}
    broken = {**row("broken", speech(2, 1.0)), "audio": b"fLaC and then nothing"}
    rows = audio.to_pylist()[:2]
    stage = stage_on(models, "hubert", "quantizer", "pitch", "style")
    out = stage.process(columns(table(rows[0], upstream, broken, rows[1])))
    assert out.schema == UNITS
    assert out["utterance_id"].to_pylist() == [rows[0]["utterance_id"], "up", "broken", rows[1]["utterance_id"]]
    assert out["reject_stage"].to_pylist() == [None, "audio", "units", None]
    assert out["reject_reason"][1].as_py() == "noise"
    assert out["reject_reason"][2].as_py()
    for stream in ("hubert", "pitch", "style"):
        assert [units is None for units in out[stream].to_pylist()] == [False, True, True, False]
    assert stage.process(columns(table(rows[1])))["hubert"][0] == out["hubert"][3]


def test_base_has_phonetic_units_only(models: dict[str, Path], audio: pa.Table) -> None:
    out = stage_on(models, "hubert", "quantizer").process(columns(audio))
    assert out["pitch"].null_count == out["style"].null_count == len(audio)
    assert out["hubert"].null_count == 0


def test_machine_errors_are_not_rejections(
    models: dict[str, Path], audio: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    stage = stage_on(models, "hubert", "quantizer")
    monkeypatch.setattr(stage._extractor, "encode", fail)
    with pytest.raises(MemoryError):
        stage.process(columns(audio))


def test_models_that_do_not_fit_are_refused(models: dict[str, Path]) -> None:
    with pytest.raises(ModelReferenceError, match="quantizer"):
        UnitExtractor({"hubert": models["hubert"]})
    with pytest.raises(RecipeError, match=r"30 hubert units are wanted, but the model at hand has 20"):
        UnitExtractor(models, {"hubert": 30})


@pytest.mark.parametrize(("role", "message"), [("quantizer", "quantizer wants 32"), ("style", "style model wants 32")])
def test_models_of_another_hubert_are_refused(models: dict[str, Path], role: str, message: str, tmp_path: Path) -> None:
    small(tmp_path / "hubert", hidden_size=48)
    kmeans = KMeans.load(models["quantizer"] / "kmeans.safetensors")
    wide = KMeans(np.zeros((20, 48), np.float32), np.zeros(48, np.float32), np.ones(48, np.float32), kmeans.facts)
    wide.save(tmp_path / "kmeans.safetensors")
    mixed = {"hubert": tmp_path / "hubert", "quantizer": tmp_path} | {role: models[role]}
    with pytest.raises(ModelReferenceError, match=message):
        UnitExtractor(mixed)


@given(st.lists(st.none() | st.floats(0.1, 900), max_size=40), st.floats(1, 1000))
def test_groups_hold_each_clip_once_shortest_first(seconds: list[float | None], most: float) -> None:
    groups = grouped(seconds, most)
    order = [i for group in groups for i in group]
    assert sorted(order) == [i for i, length in enumerate(seconds) if length is not None]
    lengths = [cast("float", seconds[i]) for i in order]
    assert lengths == sorted(lengths)
    assert all(len(group) == 1 or sum(lengths[order.index(i)] for i in group) <= most for group in groups)


def test_rows_keep_their_order_over_many_groups(
    models: dict[str, Path], audio: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_on(models, "hubert", "quantizer")
    whole = stage.process(columns(audio))
    monkeypatch.setattr("spiritlm_core.speech.stage._GROUP_SECONDS", 1.0)
    assert stage.process(columns(audio)) == whole
