"""The artifact stages of fine-tuning: `finetuned`, `finetune_measures` and `finetune_published`."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import NothingToTrainOnError
from spiritlm_core.files import markdown, read_json
from spiritlm_core.finetune.config import MeasureConfig, TuningConfig
from spiritlm_core.finetune.rows import commonest
from spiritlm_core.finetune.source import ExampleSource
from spiritlm_core.finetune.stage import context_of
from spiritlm_core.fit.config import FitCompute
from spiritlm_core.fit.job import FitJob, JobStage
from spiritlm_core.lake.schema import Row, is_rejected
from spiritlm_core.lake.shard import reason_group
from spiritlm_core.lake.stage import ArtifactStage, Output, Progress, Resources, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.lm.config import LmCompute, ModelConfig
from spiritlm_core.lm.generate.fewshot import Judged, log_likelihoods, write
from spiritlm_core.lm.generate.formats import PromptFormat
from spiritlm_core.lm.generate.prompts import Kind
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.lm.train.source import Training
from spiritlm_core.metrics.distances import judge
from spiritlm_core.publish.stage import ADAPTER, FolderStage
from spiritlm_core.speech.folder import CONFIG, copy_model
from spiritlm_core.tokens.config import SequencesConfig, TokensConfig
from spiritlm_core.tokens.counter import key_of
from spiritlm_core.tokens.hf import load_vocabulary


class FinetuneStage(JobStage):
    """Trains on the train split of ``task_examples``; the artifact is a Hugging Face folder, or adapters of peft.

    Model role: ``base``, the folder of a model of this project.
    """

    name: ClassVar[str] = "finetuned"
    about: ClassVar[str] = "the model, trained further"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (TableInput("task_examples"),)
    resources: ClassVar[Resources] = Resources(num_cpus=1)
    processes = "training"
    compute: ClassVar[type[FitCompute]] = LmCompute
    config: TuningConfig

    @classmethod
    def check(cls, tables: Mapping[str, TableView], say: Callable[[str], None]) -> None:
        """Say before the training what it will lack. Raises NothingToTrainOnError if no example is left."""
        examples = tables["task_examples"].read(("split", "reject_stage", "reject_reason")).to_pylist()
        splits = Counter(row["split"] for row in examples if not is_rejected(row))
        reasons = Counter(reason_group(row["reject_reason"]) for row in examples if is_rejected(row))
        rejected, rows = reasons.total(), reasons.total() + splits.total()
        lost = f"{rejected} of {rows} rows were rejected" + (f" ({commonest(reasons)})" if rejected else "")
        if not splits["train"]:
            raise NothingToTrainOnError(f"no row is left to train on: {lost}, {splits['held_out']} are held out")
        if 2 * rejected >= rows:
            say(f"  warning: {lost}")
        if not splits["held_out"]:
            say("  warning: no example is held out, so there will be no figures: see data.split")

    def run_job(self, job: FitJob, progress: Progress) -> dict[str, Any]:
        """Train and write the folder; resumes from the checkpoints in `work`.

        Raises TrainingError: training diverged, or was asked to stop; NothingToTrainOnError: no example is left to
        train on.
        """
        from spiritlm_core.lm.train.loop import train

        vocabulary, settings = load_vocabulary(self.models["base"]), self.config.tokens
        sizes = SequencesConfig(hubert=vocabulary.hubert, pitch=vocabulary.pitch, style=vocabulary.style)
        tokens = TokensConfig(context_length=settings.context_length, window=settings.window, sequences=sizes)
        config = ModelConfig(lm=self.config.lm, tokens=tokens)
        source = ExampleSource(job.tables["task_examples"], settings)
        return train(Training(job, config, source), progress)


SPEECH_TOKENIZER = "speech_tokenizer"
CARD = Path(__file__).parent / "templates" / "card.md.j2"  # what it was tuned from and for, figures before and after


class PublishTunedStage(FolderStage):
    """Puts the parts together. Roles: finetuned, measures and lineage; speech_tokenizer where there is one.

    A speech tokenizer in the layout of the released checkpoints stays where it is.
    """

    name: ClassVar[str] = "finetune_published"
    about: ClassVar[str] = "folder with model, speech tokenizer and figures"
    version: ClassVar[int] = 3  # 2: lineage with all digests, no padding in answers; 3: no unit that cannot be spoken
    outputs: ClassVar[tuple[Output, ...]] = (Output("model", path="model"), Output("metrics", "finetune-metrics.json"))
    model_role: ClassVar[str] = "finetuned"
    config: FrozenConfig

    def fill(self, out: Path) -> dict[str, Any]:
        """The figures, the answers, the speech tokenizer and a card."""
        for name in ("metrics.json", "answers.jsonl"):
            shutil.copyfile(self.models["measures"] / name, out / f"finetune-{name}")
        speech = self.models.get(SPEECH_TOKENIZER)
        if beside := speech is not None and (speech / CONFIG).is_file():
            copy_model(speech, out / SPEECH_TOKENIZER)
        metrics = read_json(self.models["measures"] / "metrics.json")
        card = markdown(CARD, lineage=read_json(self.models["lineage"]), metrics=metrics)
        (out / "README.md").write_text(card, encoding="utf-8")
        return {"adapter": (out / ADAPTER).is_file(), "speech_tokenizer": beside, "metrics": metrics}


class MeasureStage(ArtifactStage):
    """Loss and the metric of the task on held-out examples, before and after.

    Model roles: ``base`` and ``finetuned``. The artifact holds ``metrics.json`` and ``answers.jsonl``.
    """

    name: ClassVar[str] = "finetune_measures"
    about: ClassVar[str] = "held-out figures"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (TableInput("task_examples"),)
    resources: ClassVar[Resources] = Resources(num_cpus=1)
    config: MeasureConfig

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Write the figures; returns them."""
        held_out, labels = self._examples(tables["task_examples"])
        report: dict[str, Any] = {"held_out": len(held_out), "metric": self.config.metric, "labels": list(labels)}
        answers: dict[str, list[str]] = {}
        asked = held_out[: self.config.measures.examples]
        for share, when in ((0.0, "before"), (0.5, "after")):
            progress(share, f"held-out examples {when} fine-tuning")
            spirit = load_tuned(self.models["base"], self.models["finetuned"] if when == "after" else None)
            answers[when] = self._answers(spirit, asked, labels)
            report[when] = {**self._loss(spirit, held_out), **self._figures(spirit, asked, answers[when], labels)}
        (out / "metrics.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (out / "answers.jsonl").write_text(_lines(asked, answers), encoding="utf-8")
        return report

    def _examples(self, view: TableView) -> tuple[list[Row], tuple[str, ...]]:
        """Held-out examples, drawn by the seed, and the labels of the train split if none are given."""
        held_out = [row for shard in view.good(split="held_out") for row in shard.to_pylist() if self._fits(row)]
        seen = {text for shard in view.good(("answer_text",), "train") for text in shard["answer_text"].to_pylist()}
        held_out.sort(key=lambda row: key_of(self.config.measures.seed, str(row["example_id"])))
        labels = self.config.labels or tuple(sorted(seen))
        return held_out[: self.config.measures.losses], labels if self.config.metric == "accuracy" else ()

    def _fits(self, row: Row) -> bool:
        """Whether the base model, whose context may be shorter than that of the tuned one, can be asked, too."""
        context, ids = context_of(self.models["base"]), [row["prompt_ids"], row["answer_ids"]]
        return context is None or sum(map(len, cast("list[list[int]]", ids))) <= context

    def _loss(self, spirit: SpiritLM, rows: Sequence[Row]) -> dict[str, Any]:
        """Nats per answer token, over all of them."""
        asked = [_judged(row["prompt_ids"], row["answer_ids"]) for row in rows]
        tokens = sum(len(one.answer) for one in asked)
        nats = -float(log_likelihoods(spirit, asked).sum())
        return {"loss": round(nats / tokens, 6) if tokens else None, "answer_tokens": tokens}

    def _answers(self, spirit: SpiritLM, rows: Sequence[Row], labels: Sequence[str]) -> list[str]:
        if self.config.metric == "none" or not rows:
            return []
        prompts: Any = [row["prompt_ids"] for row in rows]
        if self.config.metric == "accuracy":
            ids = [label_ids(spirit.layout, label) for label in labels]
            options = [_judged(prompt, label) for prompt in prompts for label in ids]
            return [labels[i] for i in log_likelihoods(spirit, options).reshape(len(rows), -1).argmax(axis=1)]
        kind: Kind = "text" if self.config.metric == "wer" else "speech"
        return write(spirit, prompts, kind, self.config.measures.max_new_tokens)

    def _figures(
        self, spirit: SpiritLM, rows: Sequence[Row], answers: Sequence[str], labels: Sequence[str]
    ) -> dict[str, Any]:
        if not answers:
            return {}
        name = "answer_speech" if self.config.metric == "unit_error_rate" else "answer_text"
        known = spirit.layout.known if self.config.metric == "wer" else str
        references = [known(str(row[name])) for row in rows]
        measures = self.config.measures
        figures = judge(
            self.config.metric,
            references,
            answers,
            labels=labels,
            samples=measures.bootstrap_samples,
            seed=measures.seed,
        )
        return {**figures, "judged": len(answers)}


def _judged(prompt: Any, answer: Any) -> Judged:
    return Judged(tuple(prompt), tuple(answer))


def label_ids(layout: PromptFormat, label: str) -> list[int]:
    """The ids of a label as an answer behind ``[Text]``, up to EOS if the model has one."""
    whole = layout.prompt([("text", label)], "any")
    eos = layout.vocabulary.eos
    return [*whole[whole.index(layout.vocabulary.text_marker) + 1 :], *([] if eos is None else [eos])]


def load_tuned(base: Path, tuned: Path | None) -> SpiritLM:
    """A fine-tuned model, adapters merged into `base`; `base` itself if `tuned` is None."""
    if tuned is None or not (tuned / ADAPTER).is_file():
        return SpiritLM.from_pretrained(tuned or base)
    from peft import PeftModel

    spirit = SpiritLM.from_pretrained(base)
    adapted: Any = PeftModel.from_pretrained(spirit.model, str(tuned))
    spirit.model = adapted.merge_and_unload().eval()
    return spirit


def _lines(rows: Sequence[Row], answers: Mapping[str, Sequence[str]]) -> str:
    lines = []
    for index, row in enumerate(rows):
        given = {when: found[index] for when, found in answers.items() if found}
        right = row["answer_text"] or row["answer_speech"]
        lines.append(json.dumps({"example_id": row["example_id"], "right": right, **given}, ensure_ascii=False) + "\n")
    return "".join(lines)
