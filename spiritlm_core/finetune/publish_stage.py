"""The stage ``finetune_published``: one folder with the fine-tuned model, its speech tokenizer, figures and lineage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from spiritlm_core.config import FrozenConfig
from spiritlm_core.files import write_json
from spiritlm_core.finetune.measure_stage import ADAPTER
from spiritlm_core.lake.stage import ArtifactStage, Output, Progress, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.folder import CONFIG, copy_model

SPEECH_TOKENIZER = "speech_tokenizer"


class PublishTunedStage(ArtifactStage):
    """Puts the parts together. Roles: finetuned, measures and lineage; speech_tokenizer where there is one.

    A speech tokenizer in the layout of the released checkpoints stays where it is.
    """

    name: ClassVar[str] = "finetune_published"
    about: ClassVar[str] = "folder with model, speech tokenizer and figures"
    version: ClassVar[int] = 1
    outputs: ClassVar[tuple[Output, ...]] = (Output("model", path="model"), Output("metrics", "finetune-metrics.json"))
    inputs: ClassVar[tuple[TableInput, ...]] = ()
    config: FrozenConfig

    def build(  # the contract of stages; nothing here reads tables or is worth resuming
        self,
        tables: Mapping[str, TableView],  # noqa: ARG002
        out: Path,
        work: Path,  # noqa: ARG002
        progress: Progress,
    ) -> dict[str, Any]:
        """Write the folder; a whole model is loaded back before it counts as built.

        Raises:
            PublishError: transformers cannot load the folder.
        """
        from spiritlm_core.publish.stage import verify
        from spiritlm_core.tokens.hf import load_vocabulary

        progress(0.0, "copying the model")
        copy_model(self.models["finetuned"], out)
        for name in ("metrics.json", "answers.jsonl"):
            shutil.copyfile(self.models["measures"] / name, out / f"finetune-{name}")
        speech = self.models.get(SPEECH_TOKENIZER)
        if beside := speech is not None and (speech / CONFIG).is_file():
            copy_model(speech, out / SPEECH_TOKENIZER)
        lineage = json.loads(self.models["lineage"].read_text(encoding="utf-8"))
        write_json(out / "lineage.json", lineage)
        metrics = json.loads((self.models["measures"] / "metrics.json").read_text(encoding="utf-8"))
        (out / "README.md").write_text(_card(lineage, metrics), encoding="utf-8")
        adapter = (out / ADAPTER).is_file()
        if not adapter:
            progress(0.5, "loading the folder back")
            verify(out, load_vocabulary(out))
        return {"adapter": adapter, "speech_tokenizer": beside, "metrics": metrics}


def _card(lineage: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """A model card: what it was tuned from and for, and the held-out figures before and after."""
    before, after = metrics["before"], metrics["after"]
    rows = [
        f"| {name} | {before.get(name)} | {after[name]} |" for name in after if not name.endswith(("_low", "_high"))
    ]
    return "\n".join(
        [
            f"# {lineage['recipe']}",
            "",
            f"Fine-tuned from `{lineage['base']}`, task `{lineage['task']}`, {metrics['held_out']} held-out examples.",
            "",
            "| held out | before | after |",
            "|---|---|---|",
            *rows,
            "",
            "`lineage.json` says what it was made from, `training.json` how, `finetune-answers.jsonl` what it answers.",
            "",
        ]
    )
