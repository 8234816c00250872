from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.evaluate.corpora import HOSTILE, Corpus, evaluate, make_corpus, make_model


class Page(HTMLParser):
    """Tags, sources and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_the_files_are_there_and_metrics_are_flat(evaluation: Path) -> None:
    assert {path.name for path in evaluation.iterdir() if path.suffix != ".png"} == {
        "metrics.json",
        "verdicts.json",
        "answers.json",
        "statistics.json",
        "samples.json",
        "report.html",
        "examples",
    }
    metrics = metrics_of(evaluation)
    for stream in ("text", "speech", "interleaved", "interleaved.text", "interleaved.speech"):
        assert metrics[f"loss/{stream}/tokens"] > 0
        assert metrics[f"loss/{stream}/beats_baseline"] is False  # the model is random
    assert metrics["fewshot/speech_to_text/nothing_wer"] == 1
    assert metrics["fewshot/text_to_speech/unit_error_rate"] > 0.5
    assert {type(value) for value in metrics.values()} <= {int, float, bool, type(None)}


def test_nats_and_bits_agree_and_the_kinds_add_up(evaluation: Path) -> None:
    metrics = metrics_of(evaluation)
    for stream in ("text", "speech", "interleaved"):
        nats, bits = (metrics[f"loss/{stream}/{unit}_per_token"] for unit in ("nats", "bits"))
        assert bits == pytest.approx(nats / 0.6931471805599453, abs=1e-5)
    parts = sum(metrics[f"loss/interleaved.{kind}/tokens"] for kind in ("text", "speech"))
    assert 0 < parts < metrics["loss/interleaved/tokens"]  # the rest are markers


def test_the_report_holds_every_metric(evaluation: Path) -> None:
    page = Page((evaluation / "report.html").read_text())
    for key, value in metrics_of(evaluation).items():
        assert re.search(rf"{re.escape(key)}\s*{re.escape(str(value))}", page.text), key


def test_the_report_shows_the_main_figures_in_its_tables(evaluation: Path) -> None:
    metrics, page = metrics_of(evaluation), Page((evaluation / "report.html").read_text())
    shown = page.text.split("All figures")[0]
    for stream in ("text", "speech", "interleaved.speech"):
        assert f"{metrics[f'loss/{stream}/nats_per_token']:.3f}" in shown
        assert f"{metrics[f'loss/{stream}/gain_bits']:.2f}" in shown
    assert f"{100 * metrics['fewshot/speech_to_text/wer']:.1f}" in shown
    assert "no <b>words</b>" in shown
    assert "ab" * 32 in shown


def test_the_report_needs_nothing_from_outside(evaluation: Path) -> None:
    text = (evaluation / "report.html").read_text()
    page = Page(text)
    assert page.sources
    assert all(source.startswith(("data:", "#")) for source in page.sources)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"https?://|url\(|@import", text)
    assert page.tags.count("audio") == 8  # two samples, two utterances, four recordings that were asked
    assert page.tags.count("img") == 8
    pictures = [path.read_bytes()[:4] for path in evaluation.glob("*.png")]
    assert pictures == [b"\x89PNG"] * 5


def test_the_same_input_gives_the_same_bytes(
    corpus: Corpus, model_folder: Path, evaluation: Path, tmp_path: Path
) -> None:
    evaluate(corpus, model_folder, tmp_path / "again")
    for path in [path for path in evaluation.rglob("*") if path.is_file()]:
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(evaluation)).read_bytes(), path.name


def test_hostile_transcripts_stay_text(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", utterances=16, text=HOSTILE)
    model = make_model(tmp_path / "model", corpus)
    evaluate(corpus, model, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert "<script" not in text
    assert HOSTILE in page.text
    assert "tiny <&> recipe" in page.text


def test_samples_are_one_of_each_kind(evaluation: Path) -> None:
    samples = json.loads((evaluation / "samples.json").read_text())
    assert [sample["kind"] for sample in samples] == ["speech_to_text", "text_to_speech", "interleaved"]
    assert all(sample["prompt"] and sample["reference"] for sample in samples)
    assert "[Hu" in samples[0]["prompt"]
    assert "[Hu" in samples[1]["reference"]


def test_a_corpus_without_held_out_rows_is_reported_as_such(corpus: Corpus, model_folder: Path, tmp_path: Path) -> None:
    from spiritlm_core.lake.view import TableView

    tables = {}
    for name, view in corpus.tables.items():
        table = view.read()
        if "split" in table.column_names:
            index = table.column_names.index("split")
            table = table.set_column(index, table.schema.field("split"), [["train"] * table.num_rows])
        tables[name] = TableView.of(table)
    evaluate(Corpus(tables, corpus.tokenizer, corpus.vocabulary), model_folder, tmp_path / "out")
    metrics = metrics_of(tmp_path / "out")
    assert metrics["loss/text/bits_per_token"] is None
    assert not [key for key in metrics if key.startswith("fewshot/")]
    assert "Not measured" in (tmp_path / "out" / "report.html").read_text()


def test_importing_the_stages_loads_nothing_heavy() -> None:
    code = (
        "import sys, spiritlm_core.evaluate.config, spiritlm_core.evaluate.heldout.stage, spiritlm_core.publish.stage; "
        "heavy = ('torch', 'transformers', 'matplotlib', 'jinja2', 'rapidfuzz', 'sklearn'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_streams_of_examples_are_scored_and_shown_where_they_have_a_share(
    corpus: Corpus, evaluation: Path, tmp_path: Path
) -> None:
    evaluate(corpus, make_model(tmp_path / "model", corpus, speech=0, asr=1, classification=1), tmp_path / "out")
    metrics = metrics_of(tmp_path / "out")
    assert metrics["loss/asr/beats_baseline"] is False
    rows = [
        row
        for row in corpus.tables["sequences"].read().to_pylist()
        if row["split"] == "held_out" and not row["reject_stage"]
    ]
    assert metrics["loss/asr/documents"] == len(rows)
    assert metrics["loss/asr/tokens"] == sum(len(row["text_ids"]) + 1 for row in rows)  # the words and what ends them
    labels = sum(len(row["label_ids"]) + 1 for row in rows)
    assert metrics["loss/classification/tokens"] == labels
    assert "asr: bits per token" in (tmp_path / "out" / "report.html").read_text()
    for page in (metrics, metrics_of(evaluation)):
        assert not [key for key in page if key.startswith("loss/tts/")]
    assert not [key for key in metrics_of(evaluation) if key.startswith(("loss/asr/", "loss/classification/"))]


def test_hours_are_counted_by_what_is_said_of_the_recordings(
    corpus: Corpus, model_folder: Path, evaluation: Path, tmp_path: Path
) -> None:
    assert "hours_by_licence" not in json.loads((evaluation / "statistics.json").read_text())["audio"]
    rows = corpus.tables["audio"].read(["recording_id", "duration", "reject_stage"]).to_pylist()
    good = [row for row in rows if row["reject_stage"] is None]
    free = {row["recording_id"] for row in good[: len(good) // 3]}
    said = {"licence": "CC0-1.0", "consent": "yes", "expires": None, "recordings": sorted(free)}
    (tmp_path / "rights.json").write_text(json.dumps({"rights": [said]}))
    evaluate(corpus, model_folder, tmp_path / "out", rights=tmp_path / "rights.json")
    hours = json.loads((tmp_path / "out" / "statistics.json").read_text())["audio"]["hours_by_licence"]
    seconds = dict.fromkeys(("CC0-1.0", "unknown"), 0.0)
    for row in good:
        seconds["CC0-1.0" if row["recording_id"] in free else "unknown"] += row["duration"]
    assert hours == {licence: pytest.approx(value / 3600, abs=1e-4) for licence, value in seconds.items()}
    assert all(hours.values())
