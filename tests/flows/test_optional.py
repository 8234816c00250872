"""What a recipe can go without, looked at before anything is planned."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from flows.cli.flow import print_summary
from flows.cli.plan import planned, show_plan
from flows.graphs.speech_lm import speech_lm
from flows.recipes import find_recipe, load_recipe
from flows.recipes.optional import LACKING, SYNTHETIC, is_synthetic, notes, settled
from spiritlm_core.audio.config import AudioConfig, SyntheticAudioConfig
from spiritlm_core.audio.stage import split_of
from spiritlm_core.errors import ModelReferenceError, RecipeError, SourceError
from spiritlm_core.intake.sources.speak import SpeakSource
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.recipe import Recipe
from tests.support.items import collect

SHA = "0f" * 32
NOWHERE = f"file:///nowhere/one file:///nowhere/two#sha256={SHA}"
SILENT = "http://127.0.0.1:9"
RULES = {"kind": "grammar", "grammar": "public <a> = press <0..9999>;"}
FLITE = {"engine": "flite", "optional": True}
PROMPTS = {"kind": "prompts", "optional": True}
PROMPTED = (
    "Telephone prompts of the Asterisk project (Debian packages asterisk-core-sounds-en and -en-g722), "
    "read by one voice, CC BY-SA 3.0"
)
HUBERT = LACKING.format(
    what="`units.encoder`", therefore="these units are of a HuBERT fitted here", setting="units.encoder_optional"
)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    (folder / "model.safetensors").touch()
    return folder


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without apt-get and Flite, with an empty cache; neither a hub nor an index of packages answers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("PIP_INDEX_URL", "UV_INDEX_URL"):
        monkeypatch.setenv(name, SILENT)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", SILENT)
    monkeypatch.setattr("spiritlm_core.references.copies._RETRIES", "0")
    return tmp_path


def _speak(**settings: object) -> dict[str, object]:
    return {"kind": "speak", "utterances": 40, "texts": [RULES], "voices": [{"engine": "espeak"}, FLITE], **settings}


def _recipe(*sources: object, name: str = "scratch", settings: tuple[str, ...] = ()) -> Recipe:
    return find_recipe(name, [f"sources={json.dumps(sources)}", *settings])


def _uris(recipe: Recipe) -> list[str]:
    (source,) = [source for source in recipe.sources if isinstance(source, SpeakSource)]
    return [draft.uri for draft in source.drafts()]


def test_what_can_be_had_is_used(encoder: Path) -> None:
    given = [f"units.encoder={encoder.as_uri()}", f"evaluate.recogniser={encoder.as_uri()}"]
    wanted = [*given, "units.encoder_optional=true", "evaluate.recogniser_optional=true"]
    sources = {"kind": "folder", "path": "x"}, _speak(voices=[{"engine": "espeak"}])
    recipe = settled(_recipe(*sources, settings=tuple(wanted)))
    assert recipe == _recipe(*sources, settings=tuple(wanted))
    assert notes(recipe) == []
    sure = speech_lm(_recipe(*sources, settings=tuple(given)))
    for name, node in speech_lm(recipe).nodes.items():
        assert node.config == sure.nodes[name].config
        assert {role: of for role, of in node.models.items() if isinstance(of, str)} == {
            role: of for role, of in sure.nodes[name].models.items() if isinstance(of, str)
        }


def test_an_encoder_that_cannot_be_had_gives_way_to_a_hubert_of_its_own() -> None:
    recipe = load_recipe("scratch", [], [f"units.encoder={NOWHERE}", "units.encoder_optional=true"])
    own, graph = load_recipe("scratch"), speech_lm(recipe)
    assert graph.notes == [HUBERT]
    assert not speech_lm(own).notes
    names = ("hubert", "quantizer", "units", "model")
    assert all(graph.nodes[name].config == speech_lm(own).nodes[name].config for name in names)
    assert graph.nodes["evaluation"].models["lineage"]({})["note"] == HUBERT
    assert "note" not in speech_lm(own).nodes["evaluation"].models["lineage"]({})


@pytest.mark.parametrize(
    "reference", [NOWHERE, f"hf://some/model pypi://some-model==1.0/model/#sha256={SHA}", "hf://some/model"]
)
def test_an_evaluation_goes_on_without_a_recogniser_that_cannot_be_had(reference: str, nowhere: Path) -> None:
    settings = (f"evaluate.recogniser={reference}", "evaluate.recogniser_optional=true")
    recipe = settled(_recipe({"kind": "folder", "path": "x"}, settings=settings))
    graph = speech_lm(recipe)
    (line,) = graph.notes
    assert line.startswith("`evaluate.recogniser` could not be had, so nothing that is heard was written down")
    assert line in graph.nodes["evaluation"].models["lineage"]({})["note"]
    plain = speech_lm(find_recipe("scratch")).nodes["evaluation"]
    assert graph.nodes["evaluation"].config.key() == plain.config.key()
    assert graph.nodes["evaluation"].models.keys() == plain.models.keys()


@pytest.mark.parametrize("setting", ["units.encoder", "evaluate.recogniser"])
def test_plan_and_summary_say_that_a_model_could_not_be_had(setting: str, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("one")
    settings = [f"{setting}={NOWHERE}", f"{setting}_optional=true", f"texts=[{{path: {tmp_path / 'texts'}}}]"]
    preview, shown = planned("scratch", str(tmp_path / "lake"), [], settings, "documents"), io.StringIO()
    show_plan(preview, shown)
    print_summary({"stages": {}, "notes": preview["notes"], "startup_seconds": 0, "seconds": 0}, shown)
    assert shown.getvalue().count(f"`{setting}` could not be had") == 2
    (note,) = planned("scratch", str(tmp_path / "lake"), [], settings[2:], "documents")["notes"]
    assert "there is no lake" in note


@pytest.mark.parametrize("setting", ["units.encoder", "evaluate.recogniser"])
def test_nothing_is_optional_that_is_not_named(setting: str) -> None:
    with pytest.raises(RecipeError, match=f"{setting}_optional is true, but there is no {setting}"):
        load_recipe("scratch", [], [f"{setting}_optional=true"])


def test_two_encoders_are_an_error(encoder: Path) -> None:
    with pytest.raises(RecipeError, match="encoder and hubert.model are two names"):
        load_recipe("scratch", [], [f"units.encoder={encoder.as_uri()}", f"units.hubert.model={encoder.as_uri()}"])


@pytest.mark.parametrize("setting", ["units.encoder", "units.hubert.model"])
def test_a_folder_without_weights_is_an_error_of_the_plan(encoder: Path, setting: str) -> None:
    load_recipe("scratch", [], [f"{setting}={encoder.as_uri()}"])
    (encoder / "model.safetensors").unlink()
    with pytest.raises(ModelReferenceError, match="encoder holds no weights"):
        load_recipe("scratch", [], [f"{setting}={encoder.as_uri()}"])
    (encoder / "pytorch_model.bin.index.json").touch()
    load_recipe("scratch", [], [f"{setting}={encoder.as_uri()}"])
    with pytest.raises(ModelReferenceError, match="nowhere/one"):
        load_recipe("scratch", [], [f"{setting}=file:///nowhere/one"])


def test_a_converted_whisper_needs_its_weights_alone(encoder: Path) -> None:
    (encoder / "config.json").unlink()
    (encoder / "model.safetensors").rename(encoder / "model.bin")
    load_recipe("scratch", [], [f"units.encoder={encoder.as_uri()}"])
    (encoder / "model.bin").rename(encoder / "weights.bin")
    with pytest.raises(ModelReferenceError, match="not a Hugging Face model folder"):
        load_recipe("scratch", [], [f"units.encoder={encoder.as_uri()}"])


def test_without_flite_the_others_say_what_it_would(nowhere: Path) -> None:
    folder = {"kind": "folder", "path": "x"}
    found = settled(_recipe(folder, _speak()))
    (line,) = notes(found)
    assert line.startswith("the voices of flite could not be had, so this run goes on without")
    assert settled(found) == found
    assert _uris(found) == _uris(_recipe(folder, _speak(voices=[{"engine": "espeak"}])))
    with pytest.raises(SourceError, match="there is no other voice"):
        settled(_recipe(folder, _speak(voices=[FLITE])))
    with pytest.raises(SourceError, match=r"engine flite.*on the PATH.*apt-get is not on this machine"):
        _uris(_recipe(_speak(voices=[{"engine": "flite"}])))


def test_without_prompts_all_is_synthetic_and_a_share_of_it_held_out(nowhere: Path) -> None:
    with pytest.raises(SourceError, match="prompts:en is optional and could not be had, and there is nothing else"):
        settled(_recipe(PROMPTS))
    with pytest.raises(SourceError, match="apt-get is not on this machine"):
        list(_recipe({"kind": "prompts"}).sources[0].drafts())
    recipe = settled(_recipe(PROMPTS, _speak(utterances=200, texts=[RULES, {"kind": "transcripts", "weight": 2}])))
    told, graph = notes(recipe), speech_lm(recipe)
    assert is_synthetic(recipe.sources)
    assert told[0].startswith("prompts:en, the voices of flite could not be had, so this run goes on without")
    assert told[1] == SYNTHETIC
    assert SYNTHETIC in graph.nodes["evaluation"].models["lineage"]({})["note"]
    config = graph.nodes["audio"].config
    assert isinstance(config, SyntheticAudioConfig)
    items = collect(recipe.sources, "en", StatCache())
    assert len(items) == 200
    sides = {item.text: split_of(vars(item), config) for item in items}
    assert all(split_of(vars(item), config) == sides[item.text] for item in items)  # in whatever voice
    assert 5 < list(sides.values()).count("held_out") < 40
    assert {split_of(vars(item), AudioConfig()) for item in items} == {"train"}


def test_a_recipe_with_recorded_speech_holds_out_that_alone(tmp_path: Path) -> None:
    recipe = settled(_recipe({"kind": "folder", "path": str(tmp_path)}, _speak(voices=[{"engine": "espeak"}])))
    assert (notes(recipe), speech_lm(recipe).nodes["audio"].config) == ([], recipe.audio)


def test_the_quickstart_runs_where_there_is_nothing_to_be_had(nowhere: Path) -> None:
    recipe = load_recipe("quickstart")
    graph, names = speech_lm(recipe), ["`units.encoder`", "prompts:en, the voices of flite", "`evaluate.recogniser`"]
    assert [line.split(" could not be had")[0] for line in graph.notes] == [*names, SYNTHETIC]
    assert "hubert" in graph.nodes
    assert "recogniser" not in graph.nodes["evaluation"].models
    assert graph.nodes["published"].config.data == "Synthetic speech of eSpeak NG."
    assert {utterance.partition("?")[0].split("/")[2] for utterance in _uris(recipe)} == {"espeak"}


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (
            [PROMPTS, _speak(voices=[{"engine": "espeak"}])],
            f"{PROMPTED}; synthetic speech of eSpeak NG.",
        ),
        ([PROMPTS | {"optional": "absent"}, _speak()], "Synthetic speech of eSpeak NG, Flite."),
        (
            [{"kind": "folder", "path": "x"}, _speak(voices=[FLITE | {"optional": "absent"}, {"engine": "espeak"}])],
            "Recordings that whoever published this model did not describe; synthetic speech of eSpeak NG.",
        ),
        ([{"kind": "folder", "path": "x"}], ""),
    ],
)
def test_the_card_says_of_the_data_what_is_true_of_this_run(sources: list[object], said: str) -> None:
    assert speech_lm(_recipe(*sources, name="quickstart")).nodes["published"].config.data == said
    own = _recipe(*sources, name="quickstart", settings=("publish.data=Mine.",))
    assert speech_lm(own).nodes["published"].config.data == "Mine."
