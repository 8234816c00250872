from __future__ import annotations

from pathlib import Path

import pytest

from flows.graphs.speech_lm import ALIASES, speech_lm, targets
from flows.recipes import FOLDER, find_recipe, load_recipe, recipe_names, with_sources
from spiritlm_core.config_files import load_config
from spiritlm_core.errors import RecipeError
from spiritlm_core.lake.fingerprint import canonical_json, config_json
from spiritlm_core.recipe import Recipe

SMALL = """\
name: mine
sources:
  - {kind: folder, path: clips}
lm:
  steps: 5
  optimizer:
    learning_rate: 0.001
"""


@pytest.mark.parametrize("name", recipe_names())
def test_the_recipes_are_valid_and_fingerprintable(name):
    recipe = find_recipe(name)
    assert recipe.name == name
    assert recipe.description
    for node in speech_lm(recipe).nodes.values():
        assert canonical_json(config_json(node.config))


def test_there_are_the_recipes():
    assert recipe_names() == ["base", "expressive", "quickstart", "scratch", "smollm2", "starter", "units"]


def test_paper_settings():
    for name, pitch in (("base", 0), ("expressive", 64)):
        recipe = find_recipe(name)
        assert recipe.lm.optimizer.learning_rate == 3e-5
        assert recipe.lm.optimizer.schedule == "constant"
        assert recipe.tokens.context_length == 4096
        assert recipe.lm.tokens_per_step == 2**20
        assert recipe.lm.rope_base == 100_000
        shares = recipe.tokens.shares
        assert shares.text == shares.speech == shares.interleaved
        assert recipe.token_settings.sequences.pitch == pitch


def test_base_has_no_pitch_and_style_stages():
    names = [stage.name for stage in speech_lm(find_recipe("scratch", ["variant=base"])).wanted()]
    assert {"pitch", "style"}.isdisjoint(names)
    assert "hubert" in names
    assert "hubert" not in [stage.name for stage in speech_lm(find_recipe("base")).wanted()]


def test_every_stage_declares_what_it_is():
    for name, node in speech_lm(find_recipe("scratch", ["texts=[{path: books}]"])).nodes.items():
        assert node.stage.name == name
        assert isinstance(node.stage.version, int)
        assert node.stage.about


def test_until_takes_names_and_aliases():
    graph = speech_lm(find_recipe("scratch"))
    for alias, name in {**ALIASES, "words": "words"}.items():
        assert graph.wanted(*targets(graph, alias))[-1].name == name
    with pytest.raises(RecipeError, match=r"no stage 'wordz'.*its stages are audio, aligner, words"):
        graph.wanted(*targets(graph, "wordz"))


@pytest.mark.parametrize("texts", [[], ["texts=[{path: books}]"]], ids=["speech", "speech and text"])
def test_the_corpus_ends_where_training_begins(texts):
    graph = speech_lm(find_recipe("scratch", texts))
    corpus = [node.name for node in graph.wanted(*targets(graph, "corpus"))]
    assert corpus == [node.name for node in graph.wanted("model")][:-1]
    assert set(corpus[-2:]) == ({"sequences", "text"} if texts else {"tokenizer", "sequences"})


@pytest.mark.parametrize(
    ("until", "without"),
    [
        ("audio", {"aligner", "hubert", "tokenizer"}),
        ("words", {"hubert", "quantizer", "units", "vocoder"}),
        ("units", {"aligner", "words", "vocoder", "tokenizer"}),
        ("sequences", {"vocoder", "model"}),
        ("model", {"vocoder", "evaluation"}),
        ("evaluation", {"published", "suite"}),  # it listens to the vocoder
    ],
)
def test_until_runs_what_its_stage_is_made_from_and_nothing_else(until, without):
    graph = speech_lm(find_recipe("scratch"))
    names = [node.name for node in graph.wanted(until)]
    assert not without & set(names)
    assert names[-1] == until
    assert without <= {node.name for node in graph.wanted()}
    for name in names[:-1]:
        assert any(name in {parent.name for parent in graph.nodes[other].parents} for other in names)


def test_a_missing_recipe_says_what_there_is(tmp_path):
    with pytest.raises(RecipeError, match="there are base, expressive, quickstart, scratch, smollm2, starter, units"):
        find_recipe("nosuch")
    with pytest.raises(RecipeError, match="there is no recipe file"):
        find_recipe(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps: 5", "stepz: 5"), r"mine.yaml, line 5: lm.stepz: unknown key"),
        (("steps: 5", "steps: many"), r"mine.yaml, line 5: lm.steps: .*integer.* \(got 'many'\)"),
        (("0.001", "-1"), r"mine.yaml, line 7: lm.optimizer.learning_rate: .*greater than 0"),
        (("path: clips", "pathh: clips"), r"mine.yaml, line 3: sources.0.folder.pathh: unknown key: path may be meant"),
        (("kind: folder", "kind: tape"), r"mine.yaml, line 3: sources.0: .*tape"),
        (("name: mine", "name: a/b"), r"mine.yaml, line 1: name: .*pattern"),
        (("  steps: 5", "  steps: 5\n  steps: 6"), r"line 6: lm.steps is given twice"),
        (("name: mine\n", ""), r"mine.yaml: name: is required"),
        (("  steps: 5", "  steps: 5\n  lora: {export: adapter}"), r"lm.lora.export: .* must be merged"),
        (("lm:", "lm: ["), r"mine.yaml is not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(change, message):
    assert change[0] in SMALL
    with pytest.raises(RecipeError, match=message):
        load_config(Recipe, SMALL.replace(*change), "mine.yaml")


def test_overrides():
    recipe = load_config(Recipe, SMALL, "mine.yaml", ["lm.steps=7", "units.pitch.codes=16", "sources.0.path=other"])
    assert (recipe.lm.steps, recipe.units.pitch.codes, recipe.sources[0].path) == (7, 16, "other")
    assert load_config(Recipe, SMALL, "x", ["align.aligner=hf://a/b"]).align.aligner == "hf://a/b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lm.steps", "write KEY=VALUE"),
        ("=3", "write KEY=VALUE"),
        ("lm.stepz=3", "--set lm.stepz=3: lm.stepz: unknown key: steps may be meant"),
        ("lm=3", "--set lm=3: lm: is a group of settings, and 3 is none: set one of its keys"),
        ("sources.0={path: x}", "sources.0: needs a key 'kind'"),
        ("lm.nothing_like_it=3", "lm.nothing_like_it: unknown key$"),
        ("lm.steps=x", "--set lm.steps=x: lm.steps: .*integer"),
        ("name.x=1", "'x' cannot be set"),
        ("lm.steps.x.y=1", "'x' cannot be reached"),
        ("lm.steps=[", "not YAML"),
    ],
)
def test_wrong_overrides_are_named(override, message):
    with pytest.raises(RecipeError, match=message):
        load_config(Recipe, SMALL, "mine.yaml", [override])


@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        ([], ["librispeech", "speak"]),
        (["librispeech:mine"], ["librispeech", "speak"]),  # its words are those of the new recordings
        (["prompts:en", "speak:everyday"], ["prompts", "speak", "speak"]),
        (["speak:everyday"], ["speak"]),  # nobody else says anything
    ],
)
def test_speech_that_repeats_recordings_stays_with_others(given, kinds):
    sources = with_sources(find_recipe("starter"), given).sources
    assert [source.kind for source in sources] == kinds
    if given:
        assert [source.kind for source in with_sources(find_recipe("base"), given).sources] == kinds[: len(given)]


def test_speech_that_says_more_than_recordings_goes_with_them():
    recipe = find_recipe("starter", ["sources.1.texts=[{kind: transcripts}, {kind: grammar}]"])
    assert [source.kind for source in with_sources(recipe, ["librispeech:mine"]).sources] == ["librispeech"]


def test_the_starter_takes_a_warm_start():
    """The switch that stands in the recipe."""
    optimizer = "lm.optimizer={learning_rate: 5.0e-4, new_rows_learning_rate: 2.0e-3, schedule: wsd, warmup_steps: 100}"
    overrides = ["lm.base=hf://HuggingFaceTB/SmolLM2-135M", "lm.new_tokens_first=100", optimizer]
    recipe = find_recipe("starter", overrides)
    assert recipe.token_settings.tokenizer.base == recipe.lm.base
    assert recipe.lm.optimizer.kind == "adamw"
    for override in overrides:
        assert override in (FOLDER / "starter.yaml").read_text()


def test_recipes_are_packaged():
    assert (FOLDER / "quickstart.yaml").is_file()


def test_a_setting_of_a_source_that_another_takes_the_place_of_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    with pytest.raises(RecipeError, match=r"--set sources.0.language=fr: --source takes the place of that source"):
        load_recipe("scratch", [str(tmp_path)], ["sources.0.language=fr"])
    load_recipe("scratch", [], ["sources.0.language=fr"])
    stays = load_recipe("starter", [(tmp_path / "a b").as_uri()], ["sources.1.minutes=7"]).sources
    assert (stays[0].path, stays[1].minutes) == (str(tmp_path / "a b"), 7)
