"""`spiritlm fit units` as people run it: real speech, real Prefect, real Ray, HuBERT in two processes."""

from __future__ import annotations

import json

import pytest

from tests.integration import runs
from tests.integration.speech import prompts

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STAGES = ["audio", "hubert", "quantizer", "pitch", "style", "speech_tokenizer"]


def fit(speech, place, *more):
    common = ("--source", speech, "--lake", place / "lake", "--json")
    return json.loads(runs.spiritlm("fit", "units", runs.RECIPE, *common, *more, home=place / "home"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fit_units")


@pytest.fixture(scope="module")
def speech(place):
    return prompts(place / "speech")


@pytest.fixture(scope="module")
def first(place, speech):
    settings = ("compute.units.workers=2", "compute.units.cpus_per_worker=1")
    return fit(speech, place, *(part for setting in settings for part in ("--set", setting)))


def test_one_folder_comes_out_that_loads(place, first):
    import numpy as np

    from spiritlm_core import SpeechTokenizer

    assert list(first["stages"]) == STAGES
    assert first["speech_tokenizer"] == str(place / "lake" / "outputs" / "tiny" / "speech_tokenizer")
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    units = SpeechTokenizer.from_pretrained(first["speech_tokenizer"]).encode(noise, 16_000)
    assert (len(units.hubert), len(units.pitch), len(units.style)) == (74, 37, 3)
    assert units.hubert.max() < 12


def test_a_second_time_costs_nothing_and_copies_the_folder(place, speech, first):
    out = place / "mine"
    again = fit(speech, place, "--out", out)  # how the work was run is no part of what it gives
    assert runs.fingerprints(again) == runs.fingerprints(first)
    assert all(stage["shards_computed"] == 0 for stage in again["stages"].values())
    assert again["speech_tokenizer"] == str(out)
    assert {path.name for path in out.iterdir()} == {"config.json", "hubert", "quantizer", "pitch", "style"}


def test_the_pipeline_takes_what_is_fitted(place, speech, first):
    stages = runs.run(speech, place / "lake", "--until", "hubert", home=place / "home")["stages"]
    assert stages["hubert"]["shards_computed"] == 0
    assert stages["hubert"]["fingerprint"] == first["stages"]["hubert"]["fingerprint"]


def test_a_robust_quantizer_and_a_given_hubert(place, speech, first):
    given = f"units.hubert.model=file://{place}/lake/outputs/tiny/speech_tokenizer/hubert"
    settings = ("variant=base", given, "units.quantizer.kind=linear", "units.quantizer.linear.steps=5")
    more = [part for setting in settings for part in ("--set", setting)]
    robust = fit(speech, place, *more, "--out", place / "robust")
    assert list(robust["stages"]) == ["audio", "quantizer", "speech_tokenizer"]
    files = {str(path.relative_to(place / "robust")) for path in (place / "robust").rglob("*") if path.is_file()}
    assert {"quantizer/linear.safetensors", "hubert/model.safetensors", "config.json"} <= files
    record = json.loads((place / "robust" / "config.json").read_text())
    assert record["streams"] == {"hubert": {"classes": 13, "hertz": 25.0}}
