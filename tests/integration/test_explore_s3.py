"""The page over a lake on a real S3 server."""

from __future__ import annotations

import pytest

from spiritlm_core.explore.catalogue import Catalogue
from spiritlm_core.explore.compare import compare
from spiritlm_core.lake.lake import Lake
from tests.support.filled_lake import ROWS, name_of

pytestmark = pytest.mark.integration


def test_rows_on_s3_are_asked_in_place(filled_lake: Lake, seaweedfs) -> None:
    lake = Lake(f"{seaweedfs.uri}/lake")
    for folder in ("tables", "snapshots", "refs"):
        for entry in filled_lake.store.walk(folder):
            lake.store.write(entry.path, filled_lake.store.read(entry.path))
    catalogue = Catalogue(lake)
    listed = catalogue.listed()
    audio = catalogue.rows(listed["audio of small"])
    assert audio.count("speaker = s1") == ROWS / 2
    audio.gather()
    assert audio.gathered()
    assert audio.count("speaker = s1") == ROWS / 2
    places, _ = audio.page("", "duration", down=True, count=1)
    assert audio.read(places[0])["utterance_id"] == name_of(11)
    (old,) = [one for one in listed.values() if not one.recipes]
    assert compare(lake, catalogue.rows(old), audio).kinds == {"added": 2, "changed": 1, "rejected": 1}
