from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly

from spiritlm_core.audio.codec import read_mono, to_float32
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lineage.forget import Wanted, forget
from spiritlm_core.quality.duplicates import duplicates
from spiritlm_core.quality.fingerprint import Print, fingerprint, spectra
from tests.audio.files import libav_bytes, sound
from tests.audio.synthetic import RATE, voice
from tests.plan.lakes import compute, planned, tiny


def printed(waveform: np.ndarray) -> Print:
    return fingerprint(spectra(waveform.astype(np.float32))[0])


def reread(data: bytes, name: str) -> np.ndarray:
    return to_float32(read_mono(io.BytesIO(data), name))


SOUND = voice(4.0, 7)
COPIES = {
    "at another level": 0.1 * SOUND,
    "at 44.1 kHz and back": resample_poly(resample_poly(SOUND, 441, 160), 160, 441),
    "cut": SOUND[4800:],
    "padded": np.pad(SOUND, (7777, 3333)),
    "as MP3": reread(libav_bytes(0.3 * SOUND[4800:], "mp3", "libmp3lame"), "a.mp3"),
    "as Opus": reread(libav_bytes(0.3 * SOUND[4800:], "ogg", "libopus", 48_000), "a.opus"),
    "over the telephone": resample_poly(resample_poly(SOUND, 1, 2), 2, 1),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_found_among_others(how: str) -> None:
    others = [printed(voice(4.0, seed)) for seed in range(20, 30)]
    assert set(duplicates([printed(SOUND), *others, printed(COPIES[how])])) == {11}


def test_other_takes_and_silence_are_no_copies() -> None:
    faster = resample_poly(SOUND, 100, 106)  # the same sentence, said faster
    assert duplicates([printed(each) for each in (SOUND, SOUND[:6000], faster, *(np.zeros(RATE),) * 2)]) == {}
    assert duplicates([]) == {}


def test_short_clips_must_be_more_alike() -> None:
    rng = np.random.default_rng(0)
    for count, found in ((50, set()), (100, {1})):
        one = rng.integers(1, 2**32, count, np.uint32)
        flipped = np.packbits(rng.random((count, 32)) < 0.25, axis=1).view(np.uint32).reshape(-1)
        flipped[count // 2] = 0  # one value in common
        assert set(duplicates([one, one ^ flipped])) == found


def test_of_copies_the_first_stays_and_is_named_by_all() -> None:
    found = duplicates([printed(SOUND), printed(0.5 * SOUND), printed(SOUND[3000:])])
    assert {place: kept for place, (kept, _) in found.items()} == {1: 0, 2: 0}


def test_no_copy_of_what_is_held_out_is_left_in_train(tmp_path: Path) -> None:
    for number in (0, *range(2, 8)):  # voices that are speech from end to end
        path = sound(tmp_path / "clips" / f"{number}.wav", voice(2.0, number))
        copy = sound(tmp_path / "clips" / f"copy{number}.wav", 0.4 * voice(2.0, number))
        for each in (path, copy):
            each.with_suffix(".txt").write_text("good morning")
    recipe, lake = tiny(tmp_path / "clips", "duplicates=reject", "audio.held_out_share=0.4"), Lake(tmp_path / "lake")
    compute(recipe, lake, "selection")
    stages = planned(recipe, lake, "selection").stages
    audio, selection = (
        lake.view(lake.read_snapshot(name, stages[name].fingerprint)).read().to_pylist()
        for name in ("audio", "selection")
    )
    split = {row["utterance_id"]: row["split"] for row in audio}
    rejected = [row for row in selection if row["reject_stage"] == "selection"]
    assert len(rejected) == 7
    for name in ("0.wav", "copy0.wav"):  # whichever is kept: with it gone the other one would stay or come in
        said = forget(lake, Wanted(recordings=(str(tmp_path / "clips" / name),)), dry_run=name == "0.wav")
        (other,) = {"0.wav", "copy0.wav"} - {name}
        assert said["copies"] == [(tmp_path / "clips" / other).as_uri()]
    assert forget(lake, Wanted(recordings=(str(tmp_path / "clips" / "0.wav"),)))["copies"] == []  # both are forgotten
    across = [row for row in rejected if row["reject_reason"].startswith("same sound as what is held out: ")]
    assert across
    assert {split[row["utterance_id"]] for row in across} == {"train"}
    kept = {row["utterance_id"] for row in selection if row["reject_stage"] is None}
    for row in rejected:
        named = row["reject_reason"].split(": ")[1].split(" in ")[0]
        assert named in kept
        assert split[named] == "held_out" or split[row["utterance_id"]] == "train"
