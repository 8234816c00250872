from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.evaluate.config import PublishConfig
from spiritlm_core.evaluate.publish import PublishError, PublishStage
from tests.evaluate.conftest import Corpus, make_model

LINEAGE = {
    "recipe": "tiny",
    "artifacts": {"model": "ab" * 32},
    "snapshots": {"audio": "cd" * 32},
    "versions": {"torch": "2"},
}


def publish(model: Path, evaluated: Path, folder: Path, **config: object) -> Path:
    roles = {"model": model, "evaluation": evaluated, "lineage": folder / "lineage.json"}
    for role in ("hubert", "quantizer", "pitch", "style"):
        (folder / role).mkdir()
        (folder / role / "weights.safetensors").write_bytes(role.encode())
        roles[role] = folder / role
    roles["lineage"].write_text(json.dumps(LINEAGE))
    out = folder / "published"
    out.mkdir()
    settings = PublishConfig(title="Tiny", license="apache-2.0", units={"layer": 3}, **config)
    PublishStage(settings, roles).build({}, out, folder, lambda *_: None)
    return out


@pytest.fixture(scope="session")
def published(model_folder: Path, evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(model_folder, evaluation, tmp_path_factory.mktemp("published"))


def test_transformers_loads_it_and_the_card_is_right_about_how(published: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    card = (published / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace('"."', repr(str(published)))
    names: dict = {"print": lambda text: names.setdefault("printed", text)}
    exec(code, names)  # noqa: S102
    assert names["printed"].startswith("[Text] the weather[Speech]")
    assert type(names["model"]) is type(AutoModelForCausalLM.from_pretrained(published))
    vocabulary = json.loads((published / "vocabulary.json").read_text())
    assert AutoTokenizer.from_pretrained(published).convert_tokens_to_ids("[Text]") == vocabulary["text_size"]


def test_the_card_has_front_matter_and_the_figures(published: Path) -> None:
    card = (published / "README.md").read_text()
    header = yaml.safe_load(card.split("---\n")[1])
    metrics = json.loads((published / "metrics.json").read_text())
    assert header["license"] == "apache-2.0"
    assert header["language"] == ["en"]
    results = header["model-index"][0]["results"]
    assert results[0]["metrics"][0]["value"] == pytest.approx(100 * metrics["fewshot/speech_to_text/wer"], abs=0.01)
    assert f"{metrics['loss/speech/bits_per_token']:.3f}" in card
    assert f"{100 * metrics['fewshot/text_to_speech/unit_error_rate']:.1f} %" in card
    for heading in ("Intended use", "Training data", "Evaluation", "Limitations", "How to load", "Lineage"):
        assert f"## {heading}" in card


def test_lineage_names_every_file_with_its_digest(published: Path) -> None:
    lineage = json.loads((published / "lineage.json").read_text())
    assert {key: lineage[key] for key in LINEAGE} == LINEAGE
    paths = {path.relative_to(published).as_posix() for path in published.rglob("*") if path.is_file()}
    assert set(lineage["files"]) == paths - {"lineage.json"}
    for name, entry in lineage["files"].items():
        assert hashlib.sha256((published / name).read_bytes()).hexdigest() == entry["sha256"]


def test_the_speech_tokenizer_lies_beside_the_model(published: Path) -> None:
    record = json.loads((published / "speech_tokenizer" / "config.json").read_text())
    assert record["models"] == ["hubert", "quantizer", "pitch", "style"]
    assert record["streams"]["pitch"] == {"classes": 8, "hertz": 12.5}
    assert record["units"] == {"layer": 3}
    assert (published / "speech_tokenizer" / "pitch" / "weights.safetensors").read_bytes() == b"pitch"


def test_report_and_samples_are_published_too(published: Path) -> None:
    for name in ("report.html", "samples.json", "metrics.json", "training.json"):
        assert (published / name).stat().st_size > 0


def test_ids_that_disagree_are_not_published(corpus: Corpus, evaluation: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", corpus)
    path = model / "tokenizer.json"
    text = path.read_text().replace('"[Hu3]"', '"[XX]"').replace('"[Hu4]"', '"[Hu3]"').replace('"[XX]"', '"[Hu4]"')
    path.write_text(text)
    with pytest.raises(PublishError, match=r"2 tokens have other ids .*\[Hu3\]"):
        publish(model, evaluation, tmp_path)


def test_a_model_without_rows_for_its_vocabulary_is_not_published(
    corpus: Corpus,
    evaluation: Path,
    tmp_path: Path,
) -> None:
    from transformers import AutoModelForCausalLM

    model = make_model(tmp_path / "model", corpus)
    loaded = AutoModelForCausalLM.from_pretrained(model)
    loaded.resize_token_embeddings(corpus.vocabulary.size - 1)
    loaded.save_pretrained(model)
    with pytest.raises(PublishError, match="output rows"):
        publish(model, evaluation, tmp_path)


def test_weights_that_are_not_finite_are_not_published(corpus: Corpus, evaluation: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = make_model(tmp_path / "model", corpus)
    loaded = AutoModelForCausalLM.from_pretrained(model)
    torch.nn.init.constant_(loaded.model.norm.weight, torch.nan)
    loaded.save_pretrained(model)
    with pytest.raises(PublishError, match="not finite"):
        publish(model, evaluation, tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "vocabulary.json", "config.json"])
def test_a_folder_that_lacks_a_file_is_not_published(
    name: str,
    model_folder: Path,
    evaluation: Path,
    tmp_path: Path,
) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(model_folder, model)
    (model / name).unlink()
    with pytest.raises(SpiritLMError):
        publish(model, evaluation, tmp_path)


def test_texts_cannot_break_the_front_matter(model_folder: Path, evaluation: Path, tmp_path: Path) -> None:
    out = publish(model_folder, evaluation, tmp_path, languages=("fr",), base_model="hf://a/b@c\n---\nlicense: mit")
    header = yaml.safe_load((out / "README.md").read_text().split("\n---\n")[0].removeprefix("---\n"))
    assert header["license"] == "apache-2.0"
    assert header["language"] == ["fr"]
