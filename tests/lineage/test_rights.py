"""Licence, consent and its end: where they are said, what they keep out, and that they change no key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spiritlm_core.audio.config import AudioConfig
from spiritlm_core.audio.stage import AudioStage
from spiritlm_core.errors import SourceError
from spiritlm_core.intake.config import FolderSource, ManifestSource, ShardingConfig
from spiritlm_core.intake.notes import notes
from spiritlm_core.intake.recordings import Admitted, Recordings
from spiritlm_core.intake.rights import Rights, RightsConfig, named_licence, rights_in
from spiritlm_core.intake.source import Source
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lineage.trace import recordings
from spiritlm_core.plan.graph import Graph, plan_graph
from tests.plan.lakes import clip
from tests.support.items import Item, list_items


def listed(source: Source, rights: RightsConfig | None = None) -> dict[str, Item]:
    admitted = Admitted(rights=rights or RightsConfig())
    return {item.name: item for item in list_items(source, "en", StatCache(), None, admitted)}


def manifest(folder: Path, *rows: dict[str, Any], **settings: Any) -> ManifestSource:
    for number in range(len(rows)):
        clip(folder, number)
    lines = [json.dumps({"path": f"{number}.wav", **row}) for number, row in enumerate(rows)]
    (folder / "list.jsonl").write_text("\n".join(lines))
    return ManifestSource(path=str(folder / "list.jsonl"), **settings)


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("CC-BY-4.0", "CC-BY-4.0"),
        ("cc by 3.0", "CC-BY-3.0"),
        ("licensed under a\nCreative Commons Attribution 4.0 International License.", "CC-BY-4.0"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 4.0", "CC-BY-NC-SA-4.0"),
        ("see https://creativecommons.org/licenses/by-nc-nd/4.0/", "CC-BY-NC-ND-4.0"),
        ("Attribution-NoDerivatives 4.0 International", "CC-BY-ND-4.0"),
        ("CC0 1.0 Universal", "CC0-1.0"),
        ("Apache License\nVersion 2.0, January 2004", "Apache-2.0"),
        ("Read by 3.1 million people, permitted", None),
    ],
)
def test_usual_licences_are_called_as_spdx_does(text: str, licence: str | None) -> None:
    assert named_licence(text) == licence
    assert Rights.of({"licence": text}).licence == (licence or text.strip())


def test_a_column_counts_before_the_recipe(tmp_path: Path) -> None:
    said = {"license": "cc by 4.0", "consent": True, "expires": "2999-12-31T00:00:00"}
    items = listed(manifest(tmp_path, said, {}, licence="CC0-1.0", expires="2998-01-01"))
    assert items["0.wav"].rights == Rights("CC-BY-4.0", "yes", "2999-12-31")
    assert items["1.wav"].rights == Rights("CC0-1.0", None, "2998-01-01")


def test_what_stands_nearer_to_a_recording_counts(tmp_path: Path) -> None:
    for name in ("a", "b/c", "b"):
        clip(tmp_path / name, len(name))
    (tmp_path / "LICENSE.txt").write_text("Creative Commons Attribution 4.0")
    (tmp_path / "b" / "corpus.yaml").write_text("licence: CC0-1.0\nconsent: form 17\n")
    (tmp_path / "b" / "c" / "corpus.yaml").write_text("expires: 2999-01-01\n")
    (tmp_path / "b" / "c" / "3.json").write_text(json.dumps({"text": "good morning", "licence": "Mine"}))
    (tmp_path / "b" / "c" / "3.txt").unlink()
    items = listed(FolderSource(path=str(tmp_path), licence="MIT"))
    assert {name: item.rights for name, item in items.items()} == {
        "a/1.wav": Rights("CC-BY-4.0"),
        "b/1.wav": Rights("CC0-1.0", "form 17"),
        "b/c/3.wav": Rights("Mine", "form 17", "2999-01-01"),
    }


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (b"expires: soon\n", "expires: 'soon' is no date such as 2027-12-31"),
        (b"- consent: no\n", "it must have lines such as licence: CC-BY-4.0"),
        (b"", "it must have lines"),
        (b"licence: [MIT, CC0]\n", r"licence: \['MIT', 'CC0'\] must be one value"),
        (b"licence: [MIT\n", "while parsing a flow sequence in .* line 1"),
        (b"consent: n\xe9\n", "is not UTF-8 text"),
    ],
)
def test_a_corpus_yaml_without_sense_is_an_error_that_names_it(tmp_path: Path, written: bytes, message: str) -> None:
    clip(tmp_path, 1)
    (tmp_path / "corpus.yaml").write_bytes(written)
    with pytest.raises(SourceError, match=f"corpus.yaml:? {message}"):
        listed(FolderSource(path=str(tmp_path)))


def test_a_corpus_yaml_may_be_written_on_windows_and_in_american_and_what_it_does_not_say_is_named(
    tmp_path: Path,
) -> None:
    clip(tmp_path, 1)
    (tmp_path / "corpus.yaml").write_text("License: CC0-1.0\nconsent: signed\nexpire: 2999-01-01\n", encoding="utf-16")
    with notes() as heard:
        (item,) = listed(FolderSource(path=str(tmp_path))).values()
    assert item.rights == Rights("CC0-1.0", "signed")
    assert heard == ["corpus.yaml: not used: expire; only licence, consent, expires are"]


def test_what_may_not_be_used_is_rejected_with_a_reason(tmp_path: Path) -> None:
    rows = [
        {"licence": "CC-BY-4.0", "consent": "yes"},
        {"licence": "CC-BY-NC-4.0", "consent": "yes"},
        {"consent": "yes"},
        {"licence": "CC0-1.0", "consent": "withdrawn"},
        {"licence": "CC0-1.0", "expires": "2001-02-03"},
        {"licence": "CC0-1.0"},
        {"licence": "CC0-1.0", "expires": "tomorrow"},
    ]
    source = manifest(tmp_path, *rows)
    strict = RightsConfig(licences=("cc0-*", "CC-BY-4.0"), consent=True)
    assert [item.error for item in listed(source, strict).values()] == [
        None,
        "licence may not be used: CC-BY-NC-4.0",
        "licence may not be used: unknown",
        "no consent: withdrawn",
        "consent has expired: on 2001-02-03",
        "no consent: no source tells of one",
        "expires: 'tomorrow' is no date such as 2027-12-31",
    ]
    free = [name for name, item in listed(source).items() if item.error is None]
    assert free == ["0.wav", "1.wav", "2.wav", "5.wav"]  # a consent that is over rejects whatever the recipe says
    some = listed(source, RightsConfig(licences=("unknown",)))
    assert [name for name, item in some.items() if item.error is None] == ["2.wav"]


@pytest.mark.parametrize(
    "consent", ["yes", "Y", "true", "1", "Given", "granted", "signed on 2026-01-02", "form of 2026-03-01", "on file"]
)
def test_what_says_yes_is_a_consent(consent: str) -> None:
    assert RightsConfig(consent=True).problem(Rights.of({"consent": consent})) is None
    assert RightsConfig(consent=True).problem(Rights.of({"consent": True})) is None


@pytest.mark.parametrize(
    "consent", ["nein", "declined", "no consent", "withdrawn on 2026-11-01", "not given", "given but withdrawn", "nan"]
)
def test_what_does_not_say_yes_is_none_where_a_consent_is_asked_for(consent: str) -> None:
    said = RightsConfig(consent=True).problem(Rights(consent=consent))
    assert said is not None
    assert said.startswith(f"no consent: '{consent}' is not one of yes, y, true,")
    assert RightsConfig().problem(Rights(consent=consent)) is None


def test_yes_and_no_of_yaml_say_so_for_a_source() -> None:
    told = [FolderSource(path="a", consent=said).consent for said in (True, False, "on file", None)]
    assert told == ["yes", "no", "on file", None]


def planned(folder: Path, lake: Lake, **said: Any) -> Any:
    graph, source = Graph("levels"), FolderSource(path=str(folder), **said)
    graph.source(AudioStage, AudioConfig(), Recordings((source,), "en", ShardingConfig()))
    return plan_graph(graph, lake).stages["audio"]


def test_a_licence_changes_no_key_and_an_expired_consent_only_its_recording(tmp_path: Path) -> None:
    clip(tmp_path / "a", 1)
    clip(tmp_path / "b", 2)
    lake = Lake(tmp_path / "lake")
    silent, told = planned(tmp_path, lake), planned(tmp_path, lake, licence="CC0-1.0")
    assert told.fingerprint == silent.fingerprint
    assert "rights" not in silent.lineage
    assert {rights.licence for rights in rights_in(told.lineage).values()} == {"CC0-1.0"}
    assert len(rights_in(json.loads(json.dumps(told.lineage)))) == 2
    (tmp_path / "b" / "corpus.yaml").write_text("expires: 2020-01-01")
    later = planned(tmp_path, lake)
    (before,), (after,) = silent.jobs, later.jobs
    assert len(set(before.parent_keys) & set(after.parent_keys)) == 1
    reasons = {row["name"]: row["error"] for row in after.rows().to_pylist()}
    assert reasons == {"a/1.wav": None, "b/2.wav": "consent has expired: on 2020-01-01"}
    assert recordings(lake) == []
