"""The last stage: one Hugging Face folder with model, speech tokenizer, figures, model card and lineage.

The folder is loaded back before it counts as built; one that transformers cannot load is never published.
"""

import shutil
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from spiritlm_core.errors import SpiritLMError, is_machine_error
from spiritlm_core.files import file_sha256, read_json, write_json
from spiritlm_core.lake.stage import ArtifactStage, Output, Progress, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.metrics.bootstrap import Estimate
from spiritlm_core.metrics.verdicts import EXAMPLES, Verdict, read_verdicts, write_verdicts
from spiritlm_core.publish.card import PublishStageConfig, model_card
from spiritlm_core.speech.folder import ROLES, TokenizerFolder, copy_model, write_speech_tokenizer
from spiritlm_core.speech.folder_stage import try_speech_tokenizer
from spiritlm_core.tokens.hf import load_vocabulary
from spiritlm_core.tokens.vocabulary import Vocabulary

ADAPTER = "adapter_config.json"  # what peft calls the settings of adapters; a folder with it holds no whole model
_FIGURES = ("metrics.json", "statistics.json", "samples.json", "answers.json", "report.html")


class PublishError(SpiritLMError):
    """The published folder would not load, or its parts do not belong together."""


class FolderStage(ArtifactStage):
    """What published folders have in common: the model, loaded back, a card, and the lineage with all digests.

    Model role: lineage, a JSON object of headings with what they hold.
    """

    inputs: ClassVar[tuple[TableInput, ...]] = ()
    model_role: ClassVar[str]

    @abstractmethod
    def fill(self, out: Path) -> dict[str, Any]:
        """Put everything but model and lineage into `out`; returns what the summary says besides."""

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Write the folder and load it back, but for adapters; see :class:`PublishError` for what may be wrong.

        Returns the number of files, their size in bytes, and the sha256 of the weights.
        """
        progress(0.0, "copying the model")
        copy_model(self.models[self.model_role], out)
        told = self.fill(out)
        if not (out / ADAPTER).is_file():
            progress(0.4, "loading the folder back")
            vocabulary = load_vocabulary(out)
            _suppress_unspeakable(out, vocabulary)
            verify(out, vocabulary)
        progress(0.9, "writing the lineage")
        files = self._lineage(out)
        weights = {name: entry["sha256"] for name, entry in files.items() if name.endswith(".safetensors")}
        size = sum(entry["size"] for entry in files.values())
        return {"files": len(files) + 1, "bytes": size, "weights": weights, **told}

    def _lineage(self, out: Path) -> dict[str, dict[str, Any]]:
        given = read_json(self.models["lineage"]) if "lineage" in self.models else {}
        paths = sorted(path for path in out.rglob("*") if path.is_file())
        about = {path: {"size": path.stat().st_size, "sha256": file_sha256(path)} for path in paths}
        files: dict[str, dict[str, Any]] = {path.relative_to(out).as_posix(): told for path, told in about.items()}
        write_json(out / "lineage.json", {**given, "files": files})
        return files


class PublishStage(FolderStage):
    """Puts the artifacts of a run together into one folder that people can load.

    Roles: model and evaluation are required; hubert, quantizer, pitch, style and vocoder are copied to
    ``speech_tokenizer/`` where given. ``verdicts.json`` holds those of the evaluation and, where given, of the suite.
    """

    name: ClassVar[str] = "published"
    about: ClassVar[str] = "Hugging Face folder with model card and lineage"
    version: ClassVar[int] = (
        3  # 3: verdicts; 2: the speech tokenizer's own numbers of units, no unit beyond them in answers
    )
    outputs: ClassVar[tuple[Output, ...]] = (Output("model", path="model"),)
    model_role: ClassVar[str] = "model"
    config: PublishStageConfig

    def fill(self, out: Path) -> dict[str, Any]:
        """The speech tokenizer, which is tried, the figures and the model card."""
        vocabulary, evaluation = load_vocabulary(out), self.models["evaluation"]
        if not self.models.keys().isdisjoint(ROLES):
            sizes = {"hubert": vocabulary.hubert, "pitch": vocabulary.pitch, "style": vocabulary.style}
            write_speech_tokenizer(out / "speech_tokenizer", self.models, self.config.precision)
            try_speech_tokenizer(out / "speech_tokenizer", sizes)
        for name in _FIGURES:
            if (evaluation / name).is_file():
                shutil.copyfile(evaluation / name, out / name)
        if (evaluation / EXAMPLES).is_file():
            shutil.copytree((evaluation / EXAMPLES).parent, out / Path(EXAMPLES).parent)
        metrics, statistics = (read_json(evaluation / f"{name}.json") for name in ("metrics", "statistics"))
        model = read_json(out / "config.json")
        verdicts = [*read_verdicts(evaluation), *_suite_verdicts(self.models.get("suite"))]
        write_verdicts(out, verdicts)
        note = read_json(self.models["lineage"]).get("note", "") if "lineage" in self.models else ""
        card = model_card(self.config, metrics, statistics, model, verdicts, speaks="vocoder" in self.models, note=note)
        (out / "README.md").write_text(card, encoding="utf-8")
        return {}


def _suite_verdicts(suite: Path | None) -> Iterator[Verdict]:
    """What the suite found of the tasks that are offered to people: the first figure of each way of asking."""
    for measure in read_json(suite / "suite.json")["measures"] if suite else ():
        first = next(iter(measure["figures"]), None)
        if "offered" in measure and first is not None and first["beats_trivial"] is not None:
            values = (first[name] for name in ("value", "value_low", "value_high"))
            trivials = {
                first["trivial_answer"] or "chance": first["chance"] if first["trivial"] is None else first["trivial"]
            }
            about = {"on": f"items of {measure['task']}", "items": measure["items"], "better": first["beats_trivial"]}
            more = {**about, "shots": round(measure["mean_shots"] or 0), "labels": measure.get("labels", ())}
            yield Verdict.of(measure["offered"], first["metric"], Estimate(*values), trivials, **more)


def verify(folder: Path, vocabulary: Vocabulary) -> None:
    """Load model and tokenizer from `folder` as anybody would, and check that their ids agree.

    Raises PublishError: transformers cannot load the folder, a token has another id than ``vocabulary.json`` says, the
    model has too few rows, or it computes something that is not a number.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        loader: Any = AutoTokenizer
        tokenizer = loader.from_pretrained(str(folder), **options)
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype="auto", use_safetensors=True, **options)
    except Exception as error:  # transformers raises nearly anything over a broken file
        if is_machine_error(error):
            raise
        raise PublishError(f"{folder}: transformers cannot load what was to be published: {error}") from error
    _check_ids(tokenizer, vocabulary)
    _check_forward(model, vocabulary)


def _suppress_unspeakable(folder: Path, vocabulary: Vocabulary) -> None:
    """Keep plain ``generate`` away from units that the speech tokenizer lacks, and from rows that pad the embedding."""
    rows = read_json(folder / "config.json").get("vocab_size", 0)
    path = folder / "generation_config.json"
    settings = read_json(path) if path.is_file() else {}
    lacking = vocabulary.units_beyond(TokenizerFolder.read(folder).speakable)
    if suppressed := [*lacking, *range(vocabulary.size, rows)]:
        write_json(path, {**settings, "suppress_tokens": suppressed})


def _check_ids(tokenizer: Any, vocabulary: Vocabulary) -> None:
    expected = {token: vocabulary.text_size + index for index, token in enumerate(vocabulary.tokens)}
    found = dict(zip(expected, tokenizer.convert_tokens_to_ids(list(expected)), strict=True))
    if wrong := {token: found[token] for token, token_id in expected.items() if found[token] != token_id}:
        token, token_id = next(iter(wrong.items()))
        raise PublishError(
            f"{len(wrong)} tokens have other ids in the tokenizer than in vocabulary.json, "
            f"first {token}: {token_id} instead of {expected[token]}"
        )
    ids = tokenizer("".join(vocabulary.tokens[:4]), add_special_tokens=False)["input_ids"]
    if [i for i in ids if i >= vocabulary.text_size] != list(range(vocabulary.text_size, vocabulary.text_size + 4)):
        raise PublishError(f"the tokenizer does not recognise {''.join(vocabulary.tokens[:4])} in a text: ids {ids}")


def _check_forward(model: Any, vocabulary: Vocabulary) -> None:
    import torch

    rows = model.get_output_embeddings().weight.shape[0]
    if rows < vocabulary.size:
        raise PublishError(f"the model has {rows} output rows, the vocabulary {vocabulary.size} tokens")
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[vocabulary.speech_marker, vocabulary.unit_id("Hu", 0)]])).logits
    if not bool(torch.isfinite(logits).all()):
        raise PublishError("the model's logits are not finite: its training diverged")
