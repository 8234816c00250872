from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml

from spiritlm_core.errors import SpiritLMError
from spiritlm_core.evaluate.suite.task import figure
from spiritlm_core.lake.view import TableView
from spiritlm_core.metrics.bootstrap import Estimate
from spiritlm_core.metrics.verdicts import read_verdicts
from spiritlm_core.publish.card import PublishStageConfig
from spiritlm_core.publish.stage import PublishError, PublishStage
from spiritlm_core.speech.config import StyleConfig, UnitsConfig
from spiritlm_core.speech.fits import HubertFit, PitchFit, QuantizerFit, StyleFit
from spiritlm_core.speech.pitch.config import PitchConfig
from spiritlm_core.speech.pretraining.config import HubertConfig
from spiritlm_core.speech.quantizers.config import QuantizerConfig
from tests.evaluate.corpora import Corpus, make_model
from tests.speech import synthetic

LINEAGE = {
    "recipe": "tiny",
    "artifacts": {"model": "ab" * 32},
    "snapshots": {"audio": "cd" * 32},
    "versions": {"torch": "2"},
}


UNITS = UnitsConfig(
    hubert=HubertConfig(
        conv_channels=(16, 16, 16), hidden_size=16, layers=2, heads=2, cluster_layer=1, clusters=(8, 8), steps=(2, 2),
        batch_crops=2, crop_frames=40,
    ),
    quantizer=QuantizerConfig(units=20),
    pitch=PitchConfig(codes=16, width=8, depth=1, embedding=8, steps=4, batch_crops=2),
    style=StyleConfig(clusters=4, components=3),
)  # fmt: skip


@pytest.fixture(scope="session")
def unit_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The four models of speech units, hardly fitted."""
    stages = {
        HubertFit: UNITS.hubert,
        QuantizerFit: UNITS.quantizer_stage,
        PitchFit: UNITS.pitch,
        StyleFit: UNITS.style,
    }
    models: dict[str, Path] = {}
    audio = {"audio": TableView.of(synthetic.corpus())}
    for stage, config in stages.items():
        out = tmp_path_factory.mktemp(stage.name)
        stage(config, models).build(audio, out, tmp_path_factory.mktemp("work"), lambda *_: None)
        models[stage.name] = out
    return models


def publish(model: Path, evaluated: Path, folder: Path, units: dict[str, Path] | None = None, **config: object) -> Path:
    lineage, out = folder / "lineage.json", folder / "published"
    lineage.write_text(json.dumps(LINEAGE))
    out.mkdir()
    roles = {"model": model, "evaluation": evaluated, "lineage": lineage, **(units or {})}
    settings = PublishStageConfig(title="Tiny", license="apache-2.0", **config)
    PublishStage(settings, roles).build({}, out, folder, lambda *_: None)
    return out


@pytest.fixture(scope="session")
def published(
    model_folder: Path, evaluation: Path, unit_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return publish(model_folder, evaluation, tmp_path_factory.mktemp("published"), unit_models)


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
    assert results[0]["metrics"][0]["value"] == pytest.approx(100 * metrics["heard/wer"], abs=0.01)
    assert f"{metrics['loss/speech/bits_per_token']:.3f}" in card
    assert f"{100 * metrics['fewshot/text_to_speech/unit_error_rate']:.1f} [" in card
    for heading in ("Intended use", "Training data", "Evaluation", "Limitations", "How to load", "Lineage"):
        assert f"## {heading}" in card


def test_the_folder_says_what_the_model_is_no_good_at_and_brings_recordings_to_try(
    published: Path, evaluation: Path
) -> None:
    from spiritlm_core import SpiritLM

    model = SpiritLM.from_pretrained(published)
    assert list(model.verdicts) == read_verdicts(evaluation)
    assert {one.task for one in model.verdicts} == {"transcribe", "say", "classify"}
    assert all(Path(example["audio"]).is_file() and example["text"] for example in model.examples)
    assert len(model.examples) == 3
    assert "**not shown to be better than trivial answers**" in (published / "README.md").read_text()


def test_what_the_suite_found_comes_behind_the_evaluation(model_folder: Path, evaluation: Path, tmp_path: Path) -> None:
    figures = [figure("WER", Estimate(0.5, 0.4, 0.6), trivial={"nothing": 1.0, "any train example": 1.2}, lower=True),
               figure("CER", Estimate(2.0, 1.9, 2.1), trivial={"nothing": 1.0}, lower=True)]  # fmt: skip
    guessed = [figure("accuracy, sum", Estimate(0.3, 0.1, 0.5), chance=0.25)]
    common = {"items": 8, "mean_shots": 3.0}
    measures = [
        {"task": "transcripts", "direction": "S→T, 3 shots", "offered": "transcribe", "figures": figures, **common},
        {
            "task": "intents",
            "direction": "S, 3 shots",
            "offered": "classify",
            "figures": guessed,
            "labels": ["a", "b"],
            **common,
        },
        {"task": "words", "direction": "T", "figures": guessed, "items": 8},
        {"task": "sentiments", "direction": "S, 0 shots", "offered": "classify", "figures": [], **common},
    ]
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite/suite.json").write_text(json.dumps({"measures": measures}))
    found = read_verdicts(publish(model_folder, evaluation, tmp_path, {"suite": tmp_path / "suite"}))
    heard, chosen = found[len(read_verdicts(evaluation)) :]
    assert (heard.task, heard.measure, heard.value, heard.better, heard.shots) == ("transcribe", "WER", 0.5, True, 3)
    assert (heard.trivial_answer, heard.trivial, heard.on) == ("nothing", 1.0, "items of transcripts")
    assert (chosen.better, chosen.trivial_answer, chosen.trivial, chosen.labels) == (False, "chance", 0.25, ["a", "b"])


def test_lineage_names_every_file_with_its_digest(published: Path) -> None:
    lineage = json.loads((published / "lineage.json").read_text())
    assert {key: lineage[key] for key in LINEAGE} == LINEAGE
    paths = {path.relative_to(published).as_posix() for path in published.rglob("*") if path.is_file()}
    assert set(lineage["files"]) == paths - {"lineage.json"}
    for name, entry in lineage["files"].items():
        assert hashlib.sha256((published / name).read_bytes()).hexdigest() == entry["sha256"]


def test_the_speech_tokenizer_lies_beside_the_model_and_works(published: Path) -> None:
    from spiritlm_core import SpeechTokenizer, SpiritLM

    record = json.loads((published / "speech_tokenizer" / "config.json").read_text())
    assert record["models"] == ["hubert", "quantizer", "pitch", "style"]
    classes = {name: stream["classes"] for name, stream in record["streams"].items()}
    assert classes == {"hubert": 20, "pitch": 16, "style": 4}, "of the models, not of the vocabulary"
    units = SpeechTokenizer.from_pretrained(published).encode(synthetic.speech(1, 2.0), 16_000)
    answer = SpiritLM.from_pretrained(published).generate([("speech", units)], "text", max_new_tokens=3)
    assert [output.kind for output in answer] in ([], ["text"])


def test_plain_generation_stays_away_from_units_that_cannot_be_spoken(published: Path, corpus: Corpus) -> None:
    """The vocabulary has 24 [Hu], 16 [Pi] and 5 [St], the models have 20, 16 and 4 units."""
    suppressed = json.loads((published / "generation_config.json").read_text())["suppress_tokens"]
    units = (("St", 4), *(("Hu", unit) for unit in range(20, 24)))
    ids = [corpus.vocabulary.unit_id(*unit) for unit in units]
    assert [token for token in suppressed if token < corpus.vocabulary.size] == ids


def test_plain_generation_stays_away_from_padding_rows(published: Path, corpus: Corpus) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(published)
    with torch.no_grad():
        model.lm_head.weight[corpus.vocabulary.size :] *= 1000
    new = model.generate(torch.tensor([[corpus.vocabulary.text_marker]]), max_new_tokens=8, min_new_tokens=8)
    assert int(new.max()) < corpus.vocabulary.size < model.config.vocab_size


@pytest.mark.parametrize("missing", ["pitch", "quantizer"])
def test_a_speech_tokenizer_that_lacks_a_model_is_not_published(
    missing: str, model_folder: Path, evaluation: Path, unit_models: dict[str, Path], tmp_path: Path
) -> None:
    units = {role: path for role, path in unit_models.items() if role != missing}
    with pytest.raises(SpiritLMError, match=missing):
        publish(model_folder, evaluation, tmp_path, units)


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


def test_the_card_of_a_corpus_without_people_says_so(model_folder: Path, evaluation: Path, tmp_path: Path) -> None:
    judged = tmp_path / "evaluation"
    shutil.copytree(evaluation, judged)
    statistics = json.loads((judged / "statistics.json").read_text())
    statistics["audio"] |= {"held_out_synthetic": True, "hours_synthetic": {"flite": 1.0}}
    (judged / "statistics.json").write_text(json.dumps(statistics))
    (tmp_path / "lineage.json").write_text(json.dumps({**LINEAGE, "note": "nobody spoke"}))
    roles = {"model": model_folder, "evaluation": judged, "lineage": tmp_path / "lineage.json"}
    (tmp_path / "out").mkdir()
    PublishStage(PublishStageConfig(title="Tiny"), roles).build({}, tmp_path / "out", tmp_path, lambda *_: None)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "**Note.** nobody spoke." in card
    assert "On held-out synthetic utterances of the same corpus" in card
    assert "1.00 by flite |" in card  # not: never evaluated on
