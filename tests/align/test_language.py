"""A language has one name inside, whatever it is called outside; what is no language is refused at every door."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.recipes import find_recipe
from spiritlm_core.align import teacher
from spiritlm_core.align.whisperx import _whisper_code
from spiritlm_core.errors import RecipeError, Rejection
from spiritlm_core.evaluate.clips import normalised
from spiritlm_core.intake.config import parse_source
from spiritlm_core.intake.sources.manifest import ManifestSource
from spiritlm_core.intake.sources.prompts import PromptsSource
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.language import USUAL, language_code, main_code
from spiritlm_core.tokens.words import words_of
from tests.support.items import list_items

ENGLISH = ["en", "en-US", "en_us", "EN", "eng", "English", "en_GB.UTF-8", " en "]
OTHERS = [("français", "fr"), ("zh-Hans-CN", "zh"), ("cmn", "zh"), ("yue", "yue"), ("pt-BR", "pt"), ("中文", "zh")]
OTHERS += [("Deutsch", "de")]
NONE = ["", " ", "\x000000", "Æ\x0000\x80", "xx", "und", "zxx", "123", "unknown", "N/A", "en-", "a", "POSIX"]


@pytest.mark.parametrize("name", ENGLISH)
def test_every_spelling_of_english_spells_numbers_and_has_a_teacher(name: str) -> None:
    assert language_code(name) == "en"
    assert [" ".join(word.spoken) for word in words_of("25 & 50% 21st", name)] == [
        "twenty five", "and", "fifty percent", "twenty first",
    ]  # fmt: skip
    assert teacher.available(name) == teacher.available("en")
    assert normalised("It's colour 5", name) == normalised("It's colour 5", "en")


@pytest.mark.parametrize(("name", "code"), OTHERS)
def test_other_languages(name: str, code: str) -> None:
    assert language_code(name) == code
    assert not teacher.available(name)


@pytest.mark.parametrize("code", sorted(USUAL))
def test_usual_codes_are_those_that_the_tables_of_languages_give(code: str) -> None:
    assert language_code(f" {code}") == language_code(code) == code


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_language_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no language: write its code, such as en"):
        language_code(name)
    assert main_code(name) == (name or "en")
    assert not teacher.available(name)


@given(st.text(max_size=12))
def test_a_code_is_its_own_code(name: str) -> None:
    code = main_code(name)
    assert main_code(code) == code


def test_whisper_is_asked_in_its_own_codes() -> None:
    asked = ("en-US", "nb", "jv", "tl", "cmn", "he")
    assert [_whisper_code(name) for name in asked] == ["en", "no", "jw", "tl", "zh", "he"]
    with pytest.raises(Rejection, match="Whisper does not know the language 'tlh'"):
        _whisper_code("tlh")


def test_settings_of_recipes_and_sources_name_languages() -> None:
    where = {"path": "x.jsonl", "kind": "manifest"}
    assert find_recipe("quickstart", ["language=en_US"]).language == "en"
    assert ManifestSource.model_validate({**where, "language": "French"}).language == "fr"
    assert PromptsSource(prompts="fr-CA").prompts == parse_source("prompts:French").prompts == "fr"  # type: ignore[arg-type, union-attr]
    for setting in ("language=xx", "language=und", "publish.languages=[en, xx]"):
        with pytest.raises(RecipeError, match="is no language"):
            find_recipe("quickstart", [setting])


def test_a_row_of_a_manifest_in_no_language_is_rejected_and_the_others_are_not(tmp_path: Path) -> None:
    rows = [{"path": f"{name or 'none'}.wav", "text": "a", "language": name} for name in ("en_US", "Deutsch", "xx", "")]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        (tmp_path / str(row["path"])).write_bytes(str(row["path"]).encode())
    items = {item.name: item for item in list_items(parse_source(str(tmp_path / "list.jsonl")), "fra", StatCache())}
    assert {name: item.language for name, item in items.items() if not item.error} == {
        "en_US.wav": "en", "Deutsch.wav": "de", "none.wav": "fr",
    }  # fmt: skip
    assert items["xx.wav"].error == "language: 'xx' is no language: write its code, such as en, fr or yue"
