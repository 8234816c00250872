"""The encoder that a recipe names, looked at before anything is planned."""

import io
import json

import pytest

from flows.cli.flow import print_summary
from flows.cli.plan import planned, show_plan
from flows.graphs.speech_lm import speech_lm
from flows.recipes import load_recipe
from spiritlm_core.errors import ModelReferenceError, RecipeError
from spiritlm_core.speech.config import WITHOUT, UnitsConfig, settled

SHA = "0f" * 32
NOWHERE = f"file:///nowhere/one file:///nowhere/two#sha256={SHA}"


@pytest.fixture
def encoder(tmp_path):
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    (folder / "model.safetensors").touch()
    return folder


def test_an_encoder_that_can_be_had_is_used(encoder):
    units = UnitsConfig(encoder=encoder.as_uri(), encoder_optional=True)
    assert settled(units) == units


def test_an_optional_encoder_that_cannot_be_had_gives_way_to_a_hubert_of_its_own():
    recipe = load_recipe("scratch", [], [f"units.encoder={NOWHERE}", "units.encoder_optional=true"])
    own, graph = load_recipe("scratch"), speech_lm(recipe)
    assert graph.notes == [WITHOUT]
    assert not speech_lm(own).notes
    names = ("hubert", "quantizer", "units", "model")
    assert all(graph.nodes[name].config == speech_lm(own).nodes[name].config for name in names)
    assert graph.nodes["evaluation"].models["lineage"]({})["note"] == WITHOUT
    assert "note" not in speech_lm(own).nodes["evaluation"].models["lineage"]({})


def test_plan_and_summary_say_that_the_encoder_could_not_be_had(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("one")
    settings = [f"units.encoder={NOWHERE}", "units.encoder_optional=true", f"texts=[{{path: {tmp_path / 'texts'}}}]"]
    preview, shown = planned("scratch", str(tmp_path / "lake"), [], settings, "documents"), io.StringIO()
    show_plan(preview, shown)
    print_summary({"stages": {}, "notes": preview["notes"], "startup_seconds": 0, "seconds": 0}, shown)
    assert shown.getvalue().count("could not be had") == 2
    assert planned("scratch", str(tmp_path / "lake"), [], settings[2:], "documents")["notes"] == []


def test_an_encoder_that_has_to_be_there_is_an_error():
    units = UnitsConfig(encoder="file:///nowhere/one")
    with pytest.raises(ModelReferenceError, match="nowhere/one"):
        settled(units)


def test_nothing_is_optional_without_an_encoder():
    with pytest.raises(RecipeError, match="there is no units.encoder"):
        settled(UnitsConfig(encoder_optional=True))


def test_two_encoders_are_an_error(encoder):
    with pytest.raises(RecipeError, match="encoder and hubert.model are two names"):
        load_recipe("scratch", [], [f"units.encoder={encoder.as_uri()}", f"units.hubert.model={encoder.as_uri()}"])


@pytest.mark.parametrize("setting", ["units.encoder", "units.hubert.model"])
def test_a_folder_without_weights_is_an_error_of_the_plan(encoder, setting):
    load_recipe("scratch", [], [f"{setting}={encoder.as_uri()}"])
    (encoder / "model.safetensors").unlink()
    with pytest.raises(ModelReferenceError, match="encoder holds no weights"):
        load_recipe("scratch", [], [f"{setting}={encoder.as_uri()}"])
    (encoder / "pytorch_model.bin.index.json").touch()
    load_recipe("scratch", [], [f"{setting}={encoder.as_uri()}"])


def test_a_converted_whisper_needs_its_weights_alone(encoder):
    (encoder / "config.json").unlink()
    (encoder / "model.safetensors").rename(encoder / "model.bin")
    settled(UnitsConfig(encoder=encoder.as_uri()))
    (encoder / "model.bin").rename(encoder / "weights.bin")
    with pytest.raises(ModelReferenceError, match="not a Hugging Face model folder"):
        settled(UnitsConfig(encoder=encoder.as_uri()))
