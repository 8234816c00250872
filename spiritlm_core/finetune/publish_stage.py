"""The stage ``finetune_published``: one folder with the fine-tuned model, its speech tokenizer, figures and lineage."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from spiritlm_core.config import FrozenConfig
from spiritlm_core.files import read_json
from spiritlm_core.lake.stage import Output
from spiritlm_core.publish.stage import ADAPTER, FolderStage
from spiritlm_core.speech.folder import CONFIG, copy_model

SPEECH_TOKENIZER = "speech_tokenizer"


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
        (out / "README.md").write_text(_card(read_json(self.models["lineage"]), metrics), encoding="utf-8")
        return {"adapter": (out / ADAPTER).is_file(), "speech_tokenizer": beside, "metrics": metrics}


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
