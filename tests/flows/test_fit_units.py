"""`spiritlm fit units`: which stages it takes, and what it refuses before anything is started."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from flows import pipeline
from flows.graphs.speech_lm import speech_lm, targets
from flows.pipeline import fit_units
from flows.recipes import find_recipe
from spiritlm_core.errors import RecipeError


def names(recipe: str, *overrides: str, of: tuple[str, ...] = ("speech_tokenizer",)) -> list[str]:
    return [stage.name for stage in speech_lm(find_recipe(recipe, list(overrides))).wanted(*of)]


def test_unit_models_need_recordings_only():
    assert names("units") == ["audio", "hubert", "quantizer", "pitch", "style", "speech_tokenizer"]
    assert names("units", "variant=base") == ["audio", "hubert", "quantizer", "speech_tokenizer"]


def test_a_given_hubert_is_not_fitted():
    assert names("expressive") == ["audio", "quantizer", "pitch", "style", "speech_tokenizer"]


def test_the_parts_of_a_recipe():
    assert names("scratch", of=("pitch",)) == ["audio", "pitch"]
    assert names("scratch", of=("tokenizer", "pitch")) == ["audio", "aligner", "words", "pitch", "tokenizer"]
    for name, overrides in (("hubrt", ()), ("style", ("variant=base",))):
        with pytest.raises(RecipeError, match=rf"no stage '{name}' in recipe 'scratch'; its stages are audio, "):
            names("scratch", *overrides, of=(name,))


def test_every_stage_needs_only_stages_before_it():
    graph = speech_lm(find_recipe("scratch"))
    order = list(graph.nodes)
    for name in order:
        needed = [node.name for node in graph.wanted(name)]
        assert needed[-1] == name
        assert needed == sorted(needed, key=order.index)
    whole = [node.name for node in graph.wanted()]
    assert names("scratch", of=("published",)) == whole  # a published model says what the suite found


def test_a_stage_on_request_is_no_part_of_a_run_and_runs_where_it_is_named():
    assert "speech_tokenizer" not in names("scratch", of=())
    assert names("scratch", of=("speech_tokenizer",))[-1] == "speech_tokenizer"


def test_a_recipe_without_a_vocoder_says_how_to_get_one():
    graph = speech_lm(find_recipe("scratch", ["vocoder=null"]))
    for stage in ("vocoder", "speaking_tokenizer"):
        with pytest.raises(RecipeError, match="recipe 'scratch' has no vocoder: add a section `vocoder`"):
            targets(graph, stage)


def test_the_flow_has_a_form():
    assert set(fit_units.parameters.properties) == {"recipe", "lake", "sources", "overrides", "refit"}
    assert all(field.get("description") for field in fit_units.parameters.properties.values())


def test_a_run_makes_the_form_of_its_own_flow_alone():
    spec = spec_from_file_location("pipeline_anew", pipeline.__file__)
    anew = module_from_spec(spec)
    spec.loader.exec_module(anew)
    assert (anew.corpus.name, anew.corpus) == ("corpus", anew.corpus)
    assert [name for name in anew.BODIES if name in vars(anew)] == ["corpus"]
    with pytest.raises(AttributeError, match="has no attribute 'corpsu'"):
        _ = anew.corpsu


def spiritlm(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from spiritlm_core.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no-such-recipe",), "there is no recipe 'no-such-recipe'"),
        (("scratch", "--set", "units.pitch.codez=3"), "--set units.pitch.codez=3: units.pitch.codez: unknown key"),
        (("scratch", "--set", "unitz.pitch.codes=3"), "--set unitz.pitch.codes=3: unitz: unknown key"),
        (("scratch", "--set", "compute.units.workers=0"), "compute.units.workers"),
        (("scratch", "--source", "tape:x"), "'tape' is not one of"),
    ],
)
def test_what_is_wrong_is_said_at_once(arguments, message, tmp_path):
    done = spiritlm("fit", "units", *arguments, "--lake", tmp_path / "lake")
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "lake").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    done = spiritlm("fit", "units", "scratch", "--lake", tmp_path / "lake", "--out", tmp_path)
    assert done.returncode == 1
    assert "is no speech tokenizer" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
