"""Which keys move when a setting changes: every field of every recipe, planned as a run plans it, nothing computed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from flows.graphs.speech_lm import speech_lm
from flows.recipes import FINETUNE, find_finetune_recipe, recipe_names
from spiritlm_core.finetune.config import FinetuneRecipe
from spiritlm_core.finetune.template import find_template
from spiritlm_core.lake import plan
from spiritlm_core.lake.fingerprint import config_json
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lm.losses import LOSSES
from spiritlm_core.plan.graph import plan_graph
from spiritlm_core.recipe import Recipe
from tests.flows.settings import NOT_TRIED, changed, fields, shipped

Keys = dict[str, str]
Stages = set[str]


def _expressive(recipe: Recipe) -> bool:
    return recipe.variant == "expressive"


def _fitted(recipe: Recipe) -> bool:
    return recipe.units.given_encoder is None


def _judged(recipe: Recipe) -> bool:
    return recipe.vocoder is not None and recipe.vocoder.adversarial_from < recipe.vocoder.steps


def _if(holds: Callable[[Recipe], Any], *stages: str) -> Callable[[Recipe], Stages]:
    return lambda recipe: set(stages) if holds(recipe) else set()


def _always(*stages: str) -> Callable[[Recipe], Stages]:
    return lambda _: set(stages)


EXTRACTED = ("speech_tokenizer", "speaking_tokenizer", "unit_evaluation", "units", "copies", "resynthesis", "published")
ENCODED = ("quantizer", "style", "vocoder", *EXTRACTED)
RULES: list[tuple[str, Callable[[Recipe], Stages]]] = [
    (r"description|keep|(compute|sharding)\..*", _always()),
    (r"name", _always("evaluation", "published")),
    (r"variant", _always(*EXTRACTED, "vocoder", "sequences", "evaluation")),
    (r"language|sources\.0\.(language|speaker|channel|origin)", _always("audio")),
    (r"sources\.0\.expires|rights\..*", _always("audio")),
    (r"sources\.0\.(licence|consent)", _always("evaluation")),  # which counts hours by licence, and the card tells it
    (r"sources\..*", _always()),
    (r"texts", _always("tokenizer", "model")),
    (r"audio\..*", _always("audio")),
    (r"quality", _always()),  # filters measure without it, too
    (r"quality\..*", _always("quality")),
    (r"filters", _always("selection", "sequences")),
    (r"duplicates", _always("selection", "sequences")),
    (r"speakers\.(encoder|seconds)", _always("dvectors")),
    (r"speakers\.(similarity|recordings|seed)", _always("voices")),
    (r"speakers(\.use)?", _if(lambda recipe: recipe.speakers, "speakers")),
    (r"align\.aligner", _always("words")),
    (r"align\.asr", lambda recipe: {"words", *_if(lambda r: r.align.aligner is None, "aligner")(recipe)}),
    (r"align\.words\.min_confidence", _if(lambda recipe: recipe.align.asr, "words")),
    (r"align\.words\..*", _always("words")),
    (r"align\.fit\.asr_minutes", _if(lambda recipe: recipe.align.asr and recipe.align.aligner is None, "aligner")),
    (r"align\.fit\..*", _if(lambda recipe: recipe.align.aligner is None, "aligner")),
    (r"units\.rate", _always("quantizer", "sequences", "vocoder")),
    # absent is another encoder, and evaluation and card say so even if none was named
    (r"units\.encoder_optional", lambda r: {"evaluation", "published", *(ENCODED if r.units.encoder else ())}),
    (r"units\.(encoder|hubert\.model)", _always(*ENCODED)),
    (r"units\.hubert\.labels_layer", _if(lambda recipe: _fitted(recipe) and recipe.units.hubert.labels, "hubert")),
    (r"units\.hubert\.cluster_layer", _if(lambda r: _fitted(r) and len(r.units.hubert.clusters) > 1, "hubert")),
    (r"units\.hubert\..*", _if(_fitted, "hubert")),
    (r"units\.quantizer\.linear\..*", _if(lambda recipe: recipe.units.quantizer.kind == "linear", "quantizer")),
    (r"units\.quantizer\.(units|kind)", _always("quantizer", "vocoder")),
    (r"units\.quantizer\..*", _always("quantizer")),
    (r"units\.pitch\.codes", _if(_expressive, "pitch", "vocoder")),
    (r"units\.pitch\..*", _if(_expressive, "pitch")),
    (r"units\.style\.clusters", _if(_expressive, "style", "vocoder")),
    (r"units\.style\..*", _if(_expressive, "style")),
    (r"units\.precision", _always(*EXTRACTED)),
    (r"units\.copies\.(shifts|speeds|rooms)", _always("copies", "sequences")),
    (r"units\.copies\..*", _if(lambda recipe: recipe.units.copies.rooms, "copies")),
    (r"vocoder", _always("published", "resynthesis", "evaluation")),
    (r"vocoder\.streams", _if(_expressive, "vocoder")),
    (r"vocoder\.(discriminators\..*|judged_frames|weights\.(features|adversarial))", _if(_judged, "vocoder")),
    (r"vocoder\..*", _always("vocoder")),
    (r"tokens\.tokenizer\.(base|text)", _always("tokenizer")),
    (r"tokens\.tokenizer\..*", _if(lambda recipe: recipe.token_settings.tokenizer.base is None, "tokenizer")),
    (r"tokens\.sequences\.(pitch|style)", _if(_expressive, "sequences")),
    (r"tokens\.sequences\..*", _always("sequences")),
    (r"tokens\.(context_length|(text|speech)_span\..*)", _always("model")),
    (r"tokens\.shares\.documents", _if(lambda recipe: recipe.texts, "model")),
    (r"tokens\.(shares\..*|window|in_memory)", _always("model")),
    (r"tokens\.pairs\..*", _if(lambda recipe: recipe.tokens.shares.pairs, "model")),
    (r"lm\.(validate_every|validation_sequences)", _if(lambda recipe: recipe.lm.export == "best", "model")),
    (r"lm\.base", _always("tokenizer", "model")),
    (r"lm\.architecture\..*", _if(lambda recipe: recipe.lm.base is None, "model")),
    (r"lm\.new_token_init", _if(lambda r: r.lm.base or r.lm.new_token_init not in ("random", "mean"), "model")),
    (r"lm\.optimizer\.muon_learning_rate", _if(lambda recipe: recipe.lm.optimizer.kind == "muon", "model")),
    (r"lm\.optimizer\.decay_share", _if(lambda recipe: recipe.lm.optimizer.schedule == "wsd", "model")),
    (r"lm\.optimizer\.final_share", _if(lambda recipe: recipe.lm.optimizer.schedule != "constant", "model")),
    (r"lm(\..*)?", _always("model")),
    (r"evaluate\..*", _always("evaluation")),
    (r"publish\..*", _always("published")),
    (r"suite\.ask\.lm_eval_(limit|shots)", _if(lambda recipe: recipe.suite and recipe.suite.ask.lm_eval, "suite")),
    (r"suite(\..*)?", _always("suite")),
    (r"unit_evaluation\..*", _always("unit_evaluation")),
    (r"resynthesis\..*", _always("resynthesis")),
]
"""A pattern of fields, and the stages whose own result they change; the first that matches counts."""


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "digest_of", lambda ref: hashlib.sha256(ref.encode()).hexdigest())


@pytest.fixture(autouse=True)
def another_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "smoothed", "tests.examples.loss:smoothed")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders with the same recording, one with a text, and a lake."""
    folder = tmp_path_factory.mktemp("keys")
    noise = np.random.default_rng(0).normal(0, 0.1, (16_000, 2))
    for name in ("clips", "COPY"):
        (folder / name).mkdir()
        soundfile.write(folder / name / "clip.wav", noise, 16_000)
    (folder / "TEXTS").mkdir()
    (folder / "TEXTS" / "one.txt").write_text("one text")
    return folder


def keys(recipe: Recipe, place: Path) -> Keys:
    """The fingerprint of every stage of `recipe`; nothing is computed."""
    graph = speech_lm(recipe)
    plans = plan_graph(graph, Lake(str(place / "lake")), *graph.nodes).stages
    return {name: plan.fingerprint for name, plan in plans.items()}


def expected(path: str, recipe: Recipe, other: Recipe) -> Stages:
    """The stages whose keys a change at `path` must move: those of the rule, and all that are made from them."""
    rule = next((rule for pattern, rule in RULES if re.fullmatch(pattern, path)), None)
    assert rule is not None, f"no rule says which keys {path} moves"
    direct = rule(recipe)
    if path == "units.precision" and recipe.vocoder is not None and recipe.vocoder.shifts > 1:
        direct = {*direct, "vocoder"}
    graphs = speech_lm(recipe), speech_lm(other)
    return {
        name
        for name in graphs[0].nodes.keys() & graphs[1].nodes.keys()
        if any(direct & {node.name for node in graph.wanted(name)} for graph in graphs)
    }


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        *((name, []) for name in recipe_names()),
        ("scratch", ["variant=base", "lm.export=best", "units.quantizer.kind=linear", "vocoder.shifts=2"]),
        ("scratch", ["tokens.shares.asr=1"]),
        ("scratch", ["units.copies.rooms=1", "units.copies.speeds=[0.9]"]),
        ("scratch", ["vocoder.adversarial_from=100", "units.hubert.clusters=[9,9]", "units.hubert.steps=[9,9]"]),
        ("scratch", ["units.hubert.labels=hf://some/encoder"]),
        ("scratch", ["quality={}", "filters=['snr >= 3']"]),
        ("scratch", ["speakers={use: [split, style]}", "tokens.shares.asr=0"]),
    ],
    ids=lambda value: "+".join(map(str, value)) if isinstance(value, list) else value,
)
def test_a_setting_moves_the_keys_of_what_it_changes_and_no_others(
    name: str, overrides: list[str], place: Path
) -> None:
    recipe = shipped(name, place, overrides)
    before, wrong = keys(recipe, place), {}
    for path, annotation in fields(recipe):
        if path in NOT_TRIED:
            continue
        other = changed(recipe, path, annotation, place)
        after = keys(other, place)
        moved = {stage for stage in before.keys() & after.keys() if before[stage] != after[stage]}
        if moved != (due := expected(path, recipe, other)):
            wrong[path] = f"moves {sorted(moved - due)} for nothing, leaves {sorted(due - moved)}"
    assert not wrong, "\n".join(f"{path}: {text}" for path, text in wrong.items())


@pytest.mark.parametrize("change", ["units.hubert.learning_rate=0.001", "units.hubert.steps=[9,9]"])
def test_how_hubert_would_be_fitted_costs_nothing_where_it_is_given(change: str, place: Path) -> None:
    assert keys(shipped("base", place, [change]), place) == keys(shipped("base", place, []), place)


def test_copies_of_the_recordings_are_made_beside_what_is_there(place: Path) -> None:
    without = keys(shipped("scratch", place, []), place)
    beside = keys(shipped("scratch", place, ["units.copies.shifts=2"]), place)
    assert beside.keys() - without.keys() == {"copies"}
    kept = {name for name in without if without[name] == beside[name]}
    assert {"audio", "words", "hubert", "quantizer", "pitch", "style", "units", "vocoder", "tokenizer"} <= kept


def test_discriminators_that_never_take_part_cost_nothing(place: Path) -> None:
    later = shipped("scratch", place, ["vocoder.adversarial_from=4000", "vocoder.weights.features=3"])
    assert keys(later, place) == keys(shipped("scratch", place, []), place)


def test_the_quantizer_reaches_the_model_where_rows_start_from_its_centres_and_nowhere_else(place: Path) -> None:
    plain, centred = shipped("scratch", place, []), shipped("scratch", place, ["lm.new_token_init=centres"])
    drawn = shipped("scratch", place, ["lm.new_token_init=mean"])
    roles = [set(speech_lm(recipe).nodes["model"].models) for recipe in (plain, centred)]
    assert roles[1] - roles[0] == {"quantizer"}
    before, after = keys(plain, place), keys(centred, place)
    assert {name for name in before if before[name] != after[name]} == {"model", "evaluation", "published", "suite"}
    assert keys(drawn, place) == before, "a fresh model draws all its rows"


TUNING_RULES: list[tuple[str, Callable[[FinetuneRecipe], Stages]]] = [
    (r"data\.split\..*", _always("examples")),
    (r"tokens\.context_length", _always("examples", "tuning")),
    (r"tokens\.window", _always("tuning")),
    (r"lm\.(architecture\..*|new_token_init|vocabulary_multiple)", _always()),
    (r"lm\.(validate_every|validation_sequences)", lambda recipe: {"tuning"} if recipe.lm.export == "best" else set()),
    (r"lm\.optimizer\.(decay_share|muon_learning_rate)", _always()),
    (r"lm(\..*)?", _always("tuning")),
    (r"measures\..*", _always("measured")),
    (r".*", _always()),
]
"""The same for fine-tuning; rows of data and the models that are named have keys of their own."""


def tuning_keys(recipe: FinetuneRecipe) -> dict[str, Any]:
    template = find_template(recipe.template)
    found = {"examples": recipe.examples(template), "tuning": recipe.tuning(), "measured": recipe.measured(template)}
    return {stage: config_json(config) for stage, config in found.items()}


@pytest.mark.parametrize("name", recipe_names(FINETUNE))
@pytest.mark.parametrize("overrides", [[], ["lm.export=last"]], ids=["as it is", "last"])
def test_a_setting_of_a_fine_tuning_moves_the_keys_of_what_it_changes(
    name: str, overrides: list[str], place: Path
) -> None:
    recipe = find_finetune_recipe(name, overrides)
    before = tuning_keys(recipe)
    for path, annotation in fields(recipe):
        if path in ("lm.base", "template"):  # no setting of a fine-tuning; another task
            continue
        after = tuning_keys(changed(recipe, path, annotation, place))
        moved = {stage for stage, key in before.items() if key != after[stage]}
        assert moved == next(rule for pattern, rule in TUNING_RULES if re.fullmatch(pattern, path))(recipe), path


@pytest.mark.parametrize("role", ["recogniser", "text_judge", "speech_judge"])
def test_another_judge_at_the_same_place_moves_the_key_of_the_suite(
    role: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = shipped("scratch", place, [f"suite.ask.{role}=/models/judge"])
    before = keys(recipe, place)
    digest_of = plan.digest_of
    monkeypatch.setattr(plan, "digest_of", lambda ref: "0" * 64 if ref.endswith("/judge") else digest_of(ref))
    after = keys(recipe, place)
    assert {name for name in before if before[name] != after[name]} == {"suite", "published"}
