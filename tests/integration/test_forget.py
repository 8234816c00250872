"""A speaker is taken back after a whole run: nothing of them is left in any byte, and the statement says what was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spiritlm_core.audio.codec import decode_flac
from spiritlm_core.lake.lake import Lake
from tests.integration import runs
from tests.integration.speech import prompts
from tests.support.every_byte import holding

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(2400)]

NAME = "Zebedee"
LATER = {"model", "evaluation", "published"}


def needles(lake: Lake) -> list[bytes]:
    """The name, and a piece of every segment of the speaker: as the lake has it, and as samples."""
    rows = [row for key in lake.shard_keys("audio") for row in lake.read_shard("audio", key).to_pylist()]
    sounds = [row["audio"] for row in rows if row["speaker"] == NAME]
    waves = [np.asarray(np.clip(decode_flac(sound) * 32768, -32768, 32767), np.int16) for sound in sounds]
    assert len(sounds) >= 14
    return [
        NAME.encode(),
        *(sound[len(sound) // 2 :][:48] for sound in sounds),
        *(wave[len(wave) // 2 :][:24].tobytes() for wave in waves),
    ]


def test_nothing_of_a_speaker_is_left_in_any_byte_after_forget_a_run_and_gc(tmp_path: Path) -> None:
    home, lake, speech = tmp_path / "home", tmp_path / "lake", tmp_path / "speech"
    prompts(speech / NAME, 14)
    prompts(speech / "Quentin", 14, skip=14)
    sources = f"sources=[{{kind: folder, path: {speech}, speaker_from_folder: true}}]"

    def spiritlm(*arguments: object) -> dict[str, Any]:
        return json.loads(runs.spiritlm(*arguments, "--lake", lake, "--json", home=home))

    spiritlm("run", runs.RECIPE, "--set", sources)
    theirs = needles(Lake(lake))
    assert {path.split("/")[0] for path in holding(lake, *theirs)} >= {"tables", "blobs", "cache"}
    said = spiritlm("forget", "--speaker", NAME, "--dry-run")
    assert {one["name"] for one in said["made_with"]} == {*runs.FITTED, "vocoder", *LATER}
    assert {one["name"] for one in said["tables"] if not one["clean"]} == set(runs.TABLES)
    done = spiritlm("forget", "--speaker", NAME)
    assert (done["made_with"], done["tables"]) == (said["made_with"], said["tables"])

    spiritlm("run", runs.RECIPE, "--set", sources, "--refit")
    spiritlm("lake", "gc")
    assert holding(lake, *theirs) == {}
    left = spiritlm("forget")
    assert left["recordings"] == []
    assert left["made_with"] == []
    assert all(one["clean"] for one in left["tables"])
    assert spiritlm("lake", "verify")["problems"] == []
