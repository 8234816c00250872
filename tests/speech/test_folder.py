from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from spiritlm_core import SpeechTokenizer
from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.speech.folder import (
    SpeechTokenizerError,
    check_target,
    put_speech_tokenizer,
    write_speech_tokenizer,
)
from spiritlm_core.speech.folder_stage import SpeakingTokenizerStage, SpeechTokenizerStage, try_speech_tokenizer
from spiritlm_core.speech.vocoder.config import IstftConfig, VocoderConfig
from spiritlm_core.speech.vocoder.model import VocoderModel
from tests.speech import synthetic
from tests.speech.models import CONFIG


@pytest.fixture(scope="module")
def folder(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("speech_tokenizer")
    summary = SpeechTokenizerStage(CONFIG.stage(expressive=True), models).build({}, out, out, lambda *_: None)
    assert summary["streams"] == {"hubert": 20, "pitch": 16, "style": 4}
    return out


def test_it_gives_what_the_models_give(folder: Path, models: dict[str, Path]) -> None:
    from spiritlm_core.speech.extractor import UnitExtractor

    speech = synthetic.speech(3, 2.5)
    units = SpeechTokenizer.from_pretrained(folder).encode(speech, 16_000)
    (expected,) = UnitExtractor(models).encode([speech])
    for stream in ("hubert", "pitch", "style"):
        np.testing.assert_array_equal(getattr(units, stream), getattr(expected, stream))


def test_the_layout(folder: Path) -> None:
    record = json.loads((folder / "config.json").read_text())
    assert record["models"] == ["hubert", "quantizer", "pitch", "style"]
    assert record["streams"]["style"] == {"classes": 4, "hertz": 1.0}
    assert record["encoder"] == {"family": "hubert", "layer": 2}
    assert {path.name for path in folder.iterdir()} == {"config.json", *record["models"]}
    assert not (folder / "hubert" / "iterations").exists()


def test_it_is_used_with_the_precision_of_the_recipe(models: dict[str, Path], folder: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"precision": "bf16"}).stage(expressive=True)
    SpeechTokenizerStage(config, models).build({}, tmp_path, tmp_path, lambda *_: None)
    assert SpeechTokenizer.from_pretrained(tmp_path)._extractor.precision == "bf16"
    assert SpeechTokenizer.from_pretrained(tmp_path, precision="exact")._extractor.precision == "exact"
    assert SpeechTokenizer.from_pretrained(folder)._extractor.precision == "exact"


@pytest.mark.parametrize("said", ["{", "[]", '{"precision": "rough"}', '{"precision": null}'])
def test_a_damaged_configuration_is_named(folder: Path, said: str, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text(said)
    with pytest.raises(ModelReferenceError, match=r"config\.json: not the configuration of a speech tokenizer") as told:
        SpeechTokenizer.from_pretrained(tmp_path)
    assert "\n" not in str(told.value)
    assert "errors.pydantic.dev" not in str(told.value)


def test_what_older_versions_wrote_is_read(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    units = SpeechTokenizer.from_pretrained(folder).encode(synthetic.speech(0, 1.0)).hubert
    record = json.loads((folder / "config.json").read_text())
    for missing in (("encoder",), ("encoder", "precision", "models"), ()):
        (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in record.items() if k not in missing}))
        assert np.array_equal(SpeechTokenizer.from_pretrained(tmp_path).encode(synthetic.speech(0, 1.0)).hubert, units)
    (tmp_path / "config.json").unlink()
    assert SpeechTokenizer.from_pretrained(tmp_path).variant == "expressive"


def test_a_model_that_the_configuration_names_must_be_there(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "style")
    with pytest.raises(ModelReferenceError, match="has no style model, so it is not a whole speech tokenizer folder"):
        SpeechTokenizer.from_pretrained(tmp_path)
    assert SpeechTokenizer.from_pretrained(tmp_path, "base").variant == "base"
    with pytest.raises(ModelReferenceError, match="has no style model, which expressive units need"):
        SpeechTokenizer.from_pretrained(tmp_path, "expressive")


def test_base_has_two_models(models: dict[str, Path], tmp_path: Path) -> None:
    base = {role: models[role] for role in ("hubert", "quantizer")}
    SpeechTokenizerStage(CONFIG.stage(expressive=False), base).build({}, tmp_path, tmp_path, lambda *_: None)
    units = SpeechTokenizer.from_pretrained(tmp_path).encode(synthetic.speech(0, 1.0), 16_000)
    assert len(units.hubert) == 24
    assert units.pitch is None
    assert units.style is None


def test_what_does_not_work_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    write_speech_tokenizer(tmp_path, models)
    for sizes, message in (
        ({"hubert": 20, "pitch": 16}, "unwanted style"),
        ({"hubert": 1, "pitch": 16, "style": 4}, "hubert units up to .* not below 1"),
    ):
        with pytest.raises(SpeechTokenizerError, match=message):
            try_speech_tokenizer(tmp_path, sizes)
    (tmp_path / "quantizer" / "kmeans.safetensors").unlink()
    with pytest.raises(ModelReferenceError, match="kmeans"):
        try_speech_tokenizer(tmp_path, {"hubert": 20})


def test_a_vocoder_is_tried(models: dict[str, Path], tmp_path: Path) -> None:
    small = IstftConfig(width=16, unit_layers=1, layers=1)
    streams = {"units": 20, "pitch_units": 16, "style_units": 4}
    model = VocoderModel(VocoderConfig(**streams, embedding=4, generator=small, duration_channels=4, usual_styles=(2,)))
    model.save(tmp_path / "vocoder")
    roles = {**models, "vocoder": tmp_path / "vocoder"}
    SpeakingTokenizerStage(CONFIG.stage(expressive="pitch" in roles), roles).build(
        {}, tmp_path / "out", tmp_path, lambda *_: None
    )
    tokenizer = SpeechTokenizer.from_pretrained(tmp_path / "out")
    assert len(tokenizer.decode("[St1][Pi3][Hu2][Hu7]")) >= 2 * 640
    unsaid, first, other = (tokenizer.decode(f"{style}[Pi3][Hu2][Hu7]") for style in ("", "[St2]", "[St1]"))
    assert np.array_equal(unsaid, first)
    assert not np.array_equal(unsaid, other)
    torch.nn.init.constant_(model.generator.spread.weight, 3e38)  # finite, but what it makes is not
    model.save(tmp_path / "out" / "vocoder")
    with pytest.raises(SpeechTokenizerError, match="no usable waveform"):
        try_speech_tokenizer(tmp_path / "out", {"hubert": 20, "pitch": 16, "style": 4})


def test_putting_replaces_the_old_one_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "tokenizer"
    put_speech_tokenizer(folder, target)
    (target / "left-over").touch()
    put_speech_tokenizer(folder, target)
    names = {path.relative_to(folder) for path in folder.rglob("*")}
    assert {path.relative_to(target) for path in target.rglob("*")} == names
    assert [path.name for path in target.parent.iterdir()] == ["tokenizer"]
    precious = tmp_path / "thesis"
    precious.mkdir()
    check_target(precious)  # an empty folder may be used
    (precious / "config.json").write_text('{"model_type": "llama"}')
    for place in (precious, precious / "config.json"):
        with pytest.raises(SpeechTokenizerError, match="is no speech tokenizer"):
            put_speech_tokenizer(folder, place)
    assert (precious / "config.json").read_text() == '{"model_type": "llama"}'
