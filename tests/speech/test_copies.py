"""Recordings heard otherwise: what each change does, and the table `copies`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from spiritlm_core.audio.codec import decode_flac
from spiritlm_core.speech.config import CopiesConfig
from spiritlm_core.speech.copies import Change, changes_of, heard_in_room, played, shifts
from spiritlm_core.speech.grid import FRAME, unit_count
from spiritlm_core.speech.stage import COPIES, CopiesStage, UnitsStage
from tests.speech.models import CONFIG
from tests.speech.synthetic import row, speech, table

ALL = CopiesConfig(shifts=3, speeds=(0.8, 1.25), rooms=2)
TONE = (0.3 * np.sin(2 * np.pi * 400 * np.arange(32_000) / 16_000)).astype(np.float32)


def stage_on(models: dict[str, Path], copies: CopiesConfig = ALL, *, expressive: bool = False) -> CopiesStage:
    roles = ("hubert", "quantizer", *(("pitch", "style") if expressive else ()))
    config = CONFIG.model_copy(update={"copies": copies}).copies_stage(expressive=expressive)
    stage = CopiesStage(config, {role: models[role] for role in roles})
    stage.setup()
    return stage


def columns(audio: pa.Table) -> pa.Table:
    return audio.select(list(CopiesStage.inputs[0].columns or ()))


def test_shifts_cut_a_frame_into_equal_parts() -> None:
    assert [change.start for change in shifts(3)] == [FRAME // 4, FRAME // 2, 3 * FRAME // 4]
    assert shifts(0) == []
    assert np.array_equal(Change(start=160)(TONE, ALL, "any"), TONE[160:])
    assert Change(start=160).seconds == 0.01


@pytest.mark.parametrize("speed", [0.5, 0.9, 1.1, 2.0])
def test_a_speed_moves_length_and_pitch_and_says_where_every_sound_went(speed: float) -> None:
    click = np.zeros(32_000, np.float32)
    click[20_000] = 1
    assert abs(int(np.argmax(played(click, speed))) * speed - 20_000) <= 2
    fast = played(TONE, speed)
    assert len(fast) == int(np.ceil(32_000 / speed))
    spectrum = np.abs(np.fft.rfft(fast * np.hanning(len(fast))))
    assert abs(np.argmax(spectrum) * 16_000 / len(fast) - 400 * speed) < 2


def test_a_room_is_drawn_by_name_seed_and_number_alone() -> None:
    clip = speech(0, 1.0)
    heard = Change(room=1)(clip, ALL, "a")
    assert len(heard) == len(clip)
    assert np.array_equal(heard, Change(room=1)(clip, ALL, "a"))
    others = [Change(room=1)(clip, ALL, "b"), Change(room=2)(clip, ALL, "a")]
    others.append(Change(room=1)(clip, ALL.model_copy(update={"seed": 1}), "a"))
    assert not any(np.array_equal(heard, other) for other in others)


def test_a_room_has_the_noise_and_the_echo_that_are_asked_for() -> None:
    config = CopiesConfig(rooms=1, snr=(20.0, 20.0), reverberation=0.3)
    click = np.zeros(16_000, np.float32)
    click[4000] = 1
    heard = heard_in_room(click, config, np.random.default_rng(0))
    power = float(np.mean(heard[:3900].astype(np.float64) ** 2))
    assert 0 < power < 10 * float(np.mean(click**2)) / 100  # noise alone in front of the sound
    quiet = heard_in_room(click, CopiesConfig(rooms=1, snr=(90.0, 90.0)), np.random.default_rng(0))
    assert np.abs(quiet[:4000]).max() < 0.01 < np.abs(quiet[4100:4800]).max()


@pytest.mark.parametrize("wrong", [{"speeds": [1.0]}, {"speeds": [0.9, 0.9]}, {"speeds": [3.0]}, {"snr": [9.0, 1.0]}])
def test_what_makes_no_copy_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError, match="speeds|snr"):
        CopiesConfig(**wrong)


def test_train_rows_have_the_units_of_each_copy_and_held_out_ones_none(models: dict[str, Path]) -> None:
    clip = speech(4, 1.2)
    upstream = {**row("up", clip), "audio": None, "reject_stage": "audio", "reject_reason": "noise"}
    broken, short = {**row("broken", clip), "audio": b"fLaC and then nothing"}, row("short", clip[:1400])
    made = {**row("made", clip), "origin": "synthetic"}
    audio = table(row("a", clip), row("held", clip, split="held_out"), made, upstream, broken, short)
    stage = stage_on(models, expressive=True)
    out = stage.process(columns(audio))
    assert out.schema == COPIES
    assert out["utterance_id"].to_pylist() == ["a", "held", "made", "up", "broken", "short"]
    assert out["reject_stage"].to_pylist() == [None, None, None, "audio", "copies", None]
    first, held, made, *rejected, little = out["copies"].to_pylist()
    assert (held, made, rejected) == ([], [], [None, None])
    changes = changes_of(ALL)
    assert [(copy["start"], copy["speed"], copy["room"]) for copy in first] == [
        (change.seconds, change.speed, change.room) for change in changes
    ]
    decoded = decode_flac(audio["audio"][0].as_py())
    for copy, change in zip(first, changes, strict=True):  # those of the same sound encoded alone
        (units,) = stage._extractor.encode([change(decoded, ALL, "a")])
        assert (copy["hubert"], copy["pitch"]) == (units.hubert.tolist(), units.pitch.tolist())  # type: ignore[union-attr]
        assert len(copy["hubert"]) == unit_count(len(change(decoded, ALL, "a")))
    assert len({tuple(copy["hubert"]) for copy in first}) > 4
    assert [bool(copy["hubert"]) for copy in little] == [False, False, False, True, False, True, True]


def test_a_shard_may_hold_nothing_to_encode(models: dict[str, Path]) -> None:
    made = {**row("made", speech(4, 1.2)), "origin": "synthetic"}
    rejected = {**row("up", speech(4, 1.2)), "audio": None, "reject_stage": "audio", "reject_reason": "noise"}
    assert stage_on(models).process(columns(table(made)))["copies"].to_pylist() == [[]]
    rows = table(rejected)
    assert UnitsStage.process(stage_on(models), columns(rows))["hubert"].to_pylist() == [None]


def test_copies_do_not_depend_on_groups_shards_and_other_rows(
    models: dict[str, Path], audio: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, rows = stage_on(models), columns(audio)
    whole = stage.process(rows)
    assert whole.slice(7, 1) == stage.process(rows.slice(7, 1)).combine_chunks()
    monkeypatch.setattr("spiritlm_core.speech.stage._GROUP_SECONDS", 1.0)
    assert stage.process(rows) == whole


def test_one_copy_of_one_group_is_in_memory_at_a_time(
    models: dict[str, Path], audio: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spiritlm_core.speech.stage._GROUP_SECONDS", 3.0)
    stage, seen = stage_on(models), []
    encode = stage._extractor.encode
    monkeypatch.setattr(
        stage._extractor, "encode", lambda clips, names: (seen.append(sum(map(len, clips))), encode(clips, names))[1]
    )
    stage.process(columns(audio))
    assert len(seen) > len(changes_of(ALL))
    assert max(seen) <= 3.0 * 16_000 / min(ALL.speeds) + 16


def test_a_copy_has_the_streams_that_units_have(models: dict[str, Path], audio: pa.Table) -> None:
    rows = columns(audio).slice(0, 2)
    (copy,) = stage_on(models, CopiesConfig(shifts=1)).process(rows)["copies"][0].as_py()
    assert (copy["pitch"], copy["style"]) == (None, None)
    assert UnitsStage.schema.field("hubert").type == COPIES.field("copies").type.value_type.field("hubert").type
