"""The evaluation of a trained model on held-out recordings, as one artifact."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from spiritlm_core.audio.codec import decode_flac, encode_flac
from spiritlm_core.evaluate import plots
from spiritlm_core.evaluate.clips import rank, rows_of
from spiritlm_core.evaluate.config import EvaluateConfig
from spiritlm_core.evaluate.heldout.answers import Evaluated, pick
from spiritlm_core.evaluate.heldout.asked import Answers, ask_all, spoken, write_examples
from spiritlm_core.evaluate.heldout.fewshot import Task
from spiritlm_core.evaluate.heldout.findings import Findings, Sample, choose_documents, interleaved_sample, task_samples
from spiritlm_core.evaluate.heldout.losses import score, stream_metrics, text_metrics
from spiritlm_core.evaluate.heldout.report import Content, Drawn, charts, render
from spiritlm_core.evaluate.heldout.statistics import corpus_statistics
from spiritlm_core.files import read_json, write_json
from spiritlm_core.intake.rights import rights_in
from spiritlm_core.lake.stage import ArtifactStage, Output, Progress, Resources, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.metrics.verdicts import EXAMPLES, write_verdicts
from spiritlm_core.tokens.documents import Document

_PARTS = {"interleaved": ("text", "speech")}  # kinds of tokens told apart within a stream
_FIGURE_SECONDS = (1.0, 8.0)  # longer ones would not fit on a screen


class EvaluateStage(ArtifactStage):
    """Losses, few-shot tasks, samples and corpus statistics, and a report of them.

    Writes ``metrics.json`` (flat, see docs/evaluation.md), ``verdicts.json``, ``answers.json``, ``statistics.json``,
    ``samples.json``, ``report.html`` and the main charts as PNG. Roles: model is a Hugging Face folder of this
    pipeline; vocoder and recogniser, if given, make answers audible and write them down; base, if given, is what it
    started from; rights, if given, is what is said of the recordings;
    lineage, if given, is a JSON object whose entries are shown at the end of the report.
    """

    name: ClassVar[str] = "evaluation"
    about: ClassVar[str] = "held-out losses, few-shot tasks, report"
    version: ClassVar[int] = 7  # 6: solved examples are of people where they can be; 7: transcripts that never end
    outputs: ClassVar[tuple[Output, ...]] = (
        Output("report", "report.html", "report.html"),
        Output("metrics", "metrics.json"),
        Output("samples", "samples.json"),
        Output("verdicts", "verdicts.json"),
    )
    inputs: ClassVar[tuple[TableInput, ...]] = (
        TableInput("audio"),
        TableInput("words"),
        TableInput("units"),
        TableInput("sequences"),
        TableInput("text", optional=True),
    )
    resources: ClassVar[Resources] = Resources(num_cpus=2.0)
    config: EvaluateConfig

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Evaluate and write the files; returns the main figures."""
        progress(0.0, "loading the model")
        evaluated = Evaluated.load(self.models["model"], self.config.context_length)
        held_out = self._held_out(evaluated, tables["sequences"])
        streams = self._streams(evaluated, tables["sequences"], held_out, progress)
        if "text" in tables:
            progress(0.35, "scoring held-out text documents")
            streams |= text_metrics(evaluated, tables["text"], self.models.get("base"), self.config)
        answers = ask_all(tables, self.models, evaluated, self.config, progress)
        progress(0.75, "continuing interleaved documents")
        samples = self._samples(evaluated, list(answers.plain.values()), held_out["interleaved"])
        progress(0.8, "counting the corpus")
        rights = rights_in(read_json(self.models["rights"])) if "rights" in self.models else {}
        statistics = corpus_statistics(tables, evaluated.unit_sizes, rights)
        draws = self.config.bootstrap_samples, self.config.seed
        fewshot = {task.name: task.figures(*draws) for task in answers.tasks if task.wanted}
        shown = [sample.to_dict() for sample in samples]
        verdicts = answers.verdicts(self.config)
        if statistics["audio"]["held_out_synthetic"]:
            verdicts = [replace(verdict, on="held-out synthetic utterances") for verdict in verdicts]
        findings = Findings(streams, fewshot, statistics, shown, verdicts)
        progress(0.9, "drawing the report")
        self._write(out, self._content(findings, answers, tables, evaluated))
        return findings.summary()

    def _streams(
        self, evaluated: Evaluated, sequences: TableView, held_out: Mapping[str, Sequence[Document]], progress: Progress
    ) -> dict[str, dict[str, Any]]:
        train = evaluated.corpus(sequences, "train")
        results: dict[str, dict[str, Any]] = {}
        draws = {"samples": self.config.bootstrap_samples, "seed": self.config.seed}
        for number, stream in enumerate(held_out):
            progress(0.05 + 0.3 * number / len(held_out), f"scoring held-out {stream}")
            documents = islice(evaluated.documents(train, stream, self.config.seed), self.config.baseline_documents)
            targets = [document.targets for document in documents]
            scored = score(evaluated.spirit.model, held_out[stream], evaluated.context_length)
            for part in ("", *_PARTS.get(stream, ())):
                name = f"{stream}.{part}" if part else stream
                results[name] = stream_metrics(scored, targets, evaluated.vocabulary, **draws, within=part)
        return results

    def _held_out(self, evaluated: Evaluated, sequences: TableView) -> dict[str, list[Document]]:
        """The held-out documents of each stream, at most ``config.documents`` of them, drawn by rank."""
        corpus, seed = evaluated.corpus(sequences, "held_out"), self.config.seed
        results = {}
        for stream in evaluated.streams:
            numbered = enumerate(evaluated.documents(corpus, stream, seed))
            ranked = ((rank(seed, f"{document.key}/{i}"), i, document) for i, document in numbered)
            best = heapq.nsmallest(self.config.documents, ranked, key=lambda item: item[:2])
            results[stream] = [document for *_, document in best]
        return results

    def _samples(self, evaluated: Evaluated, tasks: Sequence[Task], documents: Sequence[Document]) -> list[Sample]:
        samples = [sample for task in tasks for sample in task_samples(task, self.config.samples, evaluated)]
        room = evaluated.context_length - self.config.max_new_tokens
        shown = choose_documents(
            [d for d in documents if len(d.ids) <= room], self.config.samples, evaluated.vocabulary
        )
        return samples + [interleaved_sample(d.key, d.ids, evaluated, self.config.max_new_tokens) for d in shown]

    def _write(self, out: Path, content: Content) -> None:
        write_json(out / "metrics.json", content.findings.metrics())
        write_json(out / "statistics.json", content.findings.statistics)
        write_json(out / "samples.json", content.findings.samples)
        write_json(out / "answers.json", content.answers.to_dict())
        write_verdicts(out, content.findings.verdicts)
        write_examples(out / EXAMPLES, content.answers.listening.clips)
        drawn = charts(content)
        (out / "report.html").write_text(render(content, drawn), encoding="utf-8")
        for name, figure in drawn.items():
            (out / f"{name}.png").write_bytes(plots.png(figure))

    def _content(
        self, findings: Findings, answers: Answers, tables: Mapping[str, TableView], evaluated: Evaluated
    ) -> Content:
        lineage = read_json(self.models["lineage"]) if "lineage" in self.models else {}
        keys = {sample["key"] for sample in findings.samples}
        recordings = {key: row["audio"] for key, row in rows_of(tables["audio"], keys, ["audio"]).items()}
        vocoder = answers.listening.vocoder
        asked = [sample for sample in findings.samples if sample["kind"] == "text_to_speech"]
        said = {sample["key"]: spoken(vocoder, sample["output"]) for sample in asked if vocoder}
        return Content(
            title=f"Spirit LM evaluation{': ' + str(lineage['recipe']) if 'recipe' in lineage else ''}",
            findings=findings,
            answers=answers,
            drawn=self._drawn(tables),
            recordings={key: audio for key, audio in recordings.items() if audio},
            spoken={key: encode_flac(waveform) for key, waveform in said.items() if waveform is not None},
            training=plots.read_curves(self.models["model"] / "metrics.parquet"),
            lineage=lineage,
            parameters=sum(parameter.numel() for parameter in evaluated.spirit.model.parameters()),
            context_length=evaluated.context_length,
            max_new_tokens=self.config.max_new_tokens,
            ended_early=read_json(self.models["model"] / "training.json").get("ended_early"),
        )

    def _drawn(self, tables: Mapping[str, TableView]) -> list[Drawn]:
        """Held-out utterances for the figures of words and units."""
        low, high = _FIGURE_SECONDS
        config, held_out = self.config, tables["sequences"]
        chosen = pick(held_out, "held_out", config.figures, config.seed, lambda one: low <= one.duration <= high)
        keys = [utterance.key for utterance in chosen]
        audio, words = (rows_of(tables[name], keys, [name]) for name in ("audio", "words"))
        units = rows_of(tables["units"], keys, ["hubert", "pitch", "style"])
        return [
            Drawn(
                key=utterance.key,
                text=utterance.text,
                waveform=decode_flac(audio[utterance.key]["audio"]),
                flac=audio[utterance.key]["audio"],
                words=words[utterance.key]["words"] or [],
                units={name: stream for name, stream in units[utterance.key].items() if stream},
            )
            for utterance in chosen
        ]
