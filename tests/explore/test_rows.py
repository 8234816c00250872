from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from spiritlm_core.align.stage import WORDS
from spiritlm_core.audio.stage import AUDIO
from spiritlm_core.errors import LakeError, SpiritLMError
from spiritlm_core.explore import duck
from spiritlm_core.explore.actions import Actions
from spiritlm_core.explore.catalogue import Catalogue
from spiritlm_core.explore.compare import compare
from spiritlm_core.explore.conditions import Column, where
from spiritlm_core.explore.rows import Place, Rows
from spiritlm_core.lake.fingerprint import write_object
from spiritlm_core.lake.forgotten import Tombstone, speaker_digest
from spiritlm_core.lake.lake import Lake, shard_path
from spiritlm_core.lake.schema import table_of
from spiritlm_core.lake.snapshot import Snapshot
from spiritlm_core.lineage.trace import Recording, recordings
from spiritlm_core.serve.guard import Kept
from tests.support.filled_lake import ROWS, audio_row, commit, name_of

COLUMNS = {
    "n": Column("n", "DOUBLE"),
    "text": Column("text", "VARCHAR"),
    "units": Column("units", "BIGINT"),
    "good": Column("good", "BOOLEAN"),
}


@pytest.fixture(scope="module")
def audio(filled_lake: Lake) -> Rows:
    catalogue = Catalogue(filled_lake)
    return catalogue.rows(catalogue.listed()["audio of small"])


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", []),
        ("n > 5", [5.0]),
        ("n == 5", [5.0]),
        ("n>=5 and text ~ this and that", [5.0, "this and that"]),
        ("text = 'a and n > 5' AND units < 3", ["a and n > 5", 3.0]),
        ("Good = TRUE and text = '> a'", [True, "> a"]),
        ('text ~ "x\' OR true --"', ["x' OR true --"]),
        ("text is not empty and n IS EMPTY", []),
    ],
)
def test_conditions_become_sql_without_their_values(text: str, values: list) -> None:
    sql, bound = where(text, COLUMNS)
    assert bound == values
    assert sql.count("?") == len(values)
    assert not any(str(value) in sql for value in values if isinstance(value, str))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m > 5", "there is no column 'm'; there are n, text, units, good"),
        ("n > five", "n is a number, and 'five' is none"),
        ("n < nan", "n is a number, and 'nan' is none"),
        ("good = maybe", "good is true or false, and 'maybe' is neither"),
        ("text <> a", "< > a is no comparison; a value that begins with > stands in quotes"),
        ("n", "'n' is no condition"),
        ("n > 5 or n < 2", "'5 or n < 2' is none"),
        ("text =", "a value is missing behind text ="),
        ("text is empty today", "'today' stands behind 'is empty'"),
        ("n > 5; DROP TABLE x", "is none"),
    ],
)
def test_what_is_no_condition_is_said(text: str, message: str) -> None:
    with pytest.raises(SpiritLMError, match=message):
        where(text, COLUMNS)


def test_rows_are_filtered_and_sorted_by_any_column(audio: Rows) -> None:
    assert audio.count() == len(audio) == ROWS
    assert next(iter(audio.columns)) == "text"
    assert "audio" not in audio.columns
    names = list(audio.columns).index("utterance_id")
    places, rows = audio.page("speaker = s1 and duration > 0.7", "duration", down=True, count=3)
    assert [row[names] for row in rows] == [name_of(n) for n in (11, 9, 7)]
    assert [audio.read(place)["utterance_id"] for place in places] == [name_of(n) for n in (11, 9, 7)]
    assert audio.count("speaker = s1 and duration > 0.7") == 5
    _, later = audio.page("speaker = s1 and duration > 0.7", "duration", down=True, start=3)
    assert [row[names] for row in later] == [name_of(n) for n in (5, 3)]
    assert audio.page(count=ROWS, sort="duration")[1][-1][names] == name_of(8), "what is empty comes last"
    for name in audio.columns:
        assert len(audio.page("", name, down=True)[1]) == ROWS


def test_pages_of_rows_that_are_alike_have_every_row_once(audio: Rows) -> None:
    for column in ("language", "speaker", "end"):
        pages = [audio.page("", column, down=True, start=start, count=2)[0] for start in range(0, ROWS, 2)]
        assert len({place for page in pages for place in page}) == ROWS


def test_a_copy_in_memory_gives_the_same_answers(filled_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duck, "_AT_ONCE", 1)
    for table in ("audio", "units"):
        catalogue = Catalogue(filled_lake)
        rows = catalogue.rows(catalogue.listed()[f"{table} of small"])
        asked = {
            "page": lambda rows=rows: rows.page("utterance_id ~ 0", "utterance_id", down=True, start=2, count=5),
            "all": lambda rows=rows: rows.page(),
            "count": lambda rows=rows: rows.count("reject_stage is empty"),
            "histogram": lambda rows=rows: [rows.histogram(name) for name in rows.columns],
            "find": lambda rows=rows: rows.find(name_of(7)),
        }
        before = {name: ask() for name, ask in asked.items()}
        catalogue.gather(rows)
        assert rows.gathered()
        with monkeypatch.context() as patch:
            patch.setattr("spiritlm_core.explore.rows.ask", None)  # whoever reads a shard fails
            assert {name: ask() for name, ask in asked.items()} == before
        assert rows.read(rows.find(name_of(7)))["utterance_id"] == name_of(7)
        catalogue.gather(catalogue.rows(catalogue.listed()["words of small"]))
        with monkeypatch.context() as patch:
            patch.setattr("spiritlm_core.explore.rows.ask", lambda *_: [(99,)])
            assert rows.count("reject_stage is empty") == 99, "one table at a time is in memory"


def test_a_table_that_is_too_large_is_asked_in_its_shards(filled_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duck, "_OF_A_COPY", "SET memory_limit = '1MB'; ATTACH ':memory:' AS copy (COMPRESS)")
    catalogue = Catalogue(filled_lake)
    rows = catalogue.rows(catalogue.listed()["audio of small"])
    rows.gather()
    assert not rows.gathered()
    assert rows.count("speaker = s1") == ROWS / 2


def test_a_table_without_shards_is_shown_as_one_without_rows(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    commit(lake, "audio", [table_of([audio_row(1)], AUDIO)])
    lake.write_snapshot(empty := Snapshot("audio", "0" * 64, ()))
    lake.write_ref("empty", "audio", "table", empty.fingerprint, "0" * 64)
    with closing(Kept(1000)) as kept:
        title, about, *_, where, rows = Actions(lake, kept).loaded("audio of empty")
    assert title["value"] == "audio of empty"
    assert "<b>0</b> rows in 0 shards" in about
    assert (rows["data"], where) == ([], "no such row")
    catalogue = Catalogue(lake)
    none, some = (catalogue.rows(catalogue.listed()[f"audio of {recipe}"]) for recipe in ("empty", "small"))
    catalogue.gather(none)
    assert none.page() == ([], [])
    assert none.find(name_of(1)) is None
    assert none.histogram("utterance_id", "reject_stage is empty").counts == []
    assert compare(lake, none, some).kinds == {"added": 1}
    assert compare(lake, some, none).kinds == {"removed": 1}


def test_a_lake_that_grows_shows_its_new_rows(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    catalogue = Catalogue(lake)
    for rows in (2, 3):
        commit(lake, "audio", [table_of([audio_row(n) for n in range(rows)], AUDIO)])
        found = catalogue.rows(catalogue.listed()["audio of small"])
        catalogue.gather(found)
        assert found.gathered()
        assert (len(found), len(found.page()[1])) == (rows, rows)


def test_what_was_forgotten_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(tmp_path)
    audio, words = (
        [audio_row(n) for n in range(4)],
        [{"utterance_id": name_of(n), "text": "word", "text_origin": "given"} for n in range(4)],
    )
    old = commit(lake, "audio", [table_of(audio[:3], AUDIO)], used=False)
    first = commit(lake, "audio", [table_of(audio, AUDIO)])
    second = commit(lake, "words", [table_of(words, WORDS)])
    catalogue = Catalogue(lake)
    seen = catalogue.rows(catalogue.listed()["audio of small"])
    place = seen.find(name_of(1))
    assert place is not None
    held = [snapshot.fingerprint for snapshot in (old, first, second)]
    asked: list[list[str]] = []

    def heard(lake: Lake, keys: list[str]) -> list[Recording]:
        asked.append(keys)
        return recordings(lake, keys)

    monkeypatch.setattr("spiritlm_core.explore.catalogue.recordings", heard)
    write_object(lake.store, Tombstone("a", 1.0, [], [f"{2:020x}"], [speaker_digest("s1")], held, {}))
    for gathered in (False, True):
        for table, names in (("audio", [name_of(0)]), ("words", [name_of(0)])):
            rows = catalogue.rows(catalogue.listed()[f"{table} of small"])
            if gathered:
                rows.gather()
                assert rows.gathered()
            at = list(rows.columns).index("utterance_id")
            assert [row[at] for row in rows.page()[1]] == names
            assert (len(rows), rows.hidden, rows.count(), rows.count("text ~ word")) == (1, 3, 1, 1)
            assert rows.find(name_of(1)) is None
            assert rows.read(place) == {}
    assert sorted(asked) == sorted([key] for key in lake.shard_keys("audio")), "one shard at a time, for both tables"
    listed = catalogue.listed()
    title = next(title for title, one in listed.items() if not one.recipes)
    found = compare(lake, catalogue.rows(listed[title]), catalogue.rows(listed["audio of small"]))
    assert found.kinds == {}


def test_a_row_is_found_by_its_name(audio: Rows) -> None:
    assert audio.find(name_of(7)) == Place(1, 2)
    assert audio.find("nobody") is None


def test_histograms_count_what_the_conditions_leave(audio: Rows) -> None:
    numbers = audio.histogram("duration", "speaker = s1")
    assert sum(numbers.counts) == 6
    assert numbers.edges[0] == pytest.approx(0.65)
    assert numbers.edges[-1] == pytest.approx(1.15)
    texts = audio.histogram("speaker")
    assert dict(zip(texts.values, texts.counts, strict=True)) == {"s0": 5, "s1": 6, "(empty)": 1}
    assert audio.histogram("end").counts == []


def test_lists_count_as_their_lengths(filled_lake: Lake) -> None:
    catalogue = Catalogue(filled_lake)
    units = catalogue.rows(catalogue.listed()["units of small"])
    lengths = [row[list(units.columns).index("hubert")] for row in units.page("hubert > 3")[1]]
    assert len(lengths) == ROWS - 1
    assert all(isinstance(length, int) for length in lengths)


def test_two_snapshots_differ_in_the_rows_of_their_shards(filled_lake: Lake, audio: Rows) -> None:
    catalogue = Catalogue(filled_lake)
    (old,) = [one for one in catalogue.listed().values() if not one.recipes]
    found = compare(filled_lake, catalogue.rows(old), audio)
    assert found.kinds == {"added": 2, "changed": 1, "rejected": 1}
    assert ("rejected", name_of(8), "", "too short: 0.01 s") in found.rows
    assert found.counts["rows"] == (10, ROWS)
    assert found.reasons == {"too short": (0, 1)}
    assert compare(filled_lake, audio, catalogue.rows(old)).kinds == {"accepted": 1, "changed": 1, "removed": 2}
    assert compare(filled_lake, audio, audio).kinds == {}


def test_an_empty_lake_and_a_missing_shard_are_said(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    with pytest.raises(LakeError, match="there is no table in .* yet: `spiritlm run` makes them"):
        Catalogue(lake).listed()
    snapshot = commit(lake, "audio", [table_of([audio_row(0)], AUDIO)])
    lake.store.delete(shard_path("audio", snapshot.keys[0]))
    with pytest.raises(LakeError, match="cannot be asked"):
        Rows(lake, snapshot)
