"""The model card: what the model is, what it was made from, what it can do, and what it cannot; and its settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from spiritlm_core.config import FrozenConfig
from spiritlm_core.files import markdown
from spiritlm_core.language import LanguageCode
from spiritlm_core.metrics.verdicts import WHO, Verdict
from spiritlm_core.speech.settings import ExtractionConfig


class PublishConfig(FrozenConfig):
    """What the model card says that the figures do not."""

    title: str = Field("Spirit LM", min_length=1, max_length=96, description="Title of the model card.")
    license: str = Field(
        "other", pattern=r"^[a-z0-9.-]+$", description="Licence of the weights, as the Hugging Face hub spells it."
    )
    languages: tuple[LanguageCode, ...] = Field(
        (), description="Languages of the model card, as ISO 639-1 codes; empty: those of the corpus."
    )
    description: str = Field("", max_length=4000, description="A paragraph of your own at the top of the card.")
    data: str = Field(
        "",
        max_length=4000,
        description="Where the recordings come from, and under which licence; empty: what is known of the sources.",
    )
    base_model: str | None = Field(None, description="Reference of the model that training started from, if any.")


class PublishStageConfig(PublishConfig, ExtractionConfig):
    """What the stage is given: the model card, and how the units of the corpus were extracted."""


_HUB = {
    "transcribe": ("automatic-speech-recognition", "Transcribing"),
    "say": ("text-to-speech", "Saying"),
    "classify": ("audio-classification", "Classifying"),
}
"""Task → what the hub calls it, and what the card does."""


def model_card(
    config: PublishConfig,
    metrics: Mapping[str, Any],
    statistics: Mapping[str, Any],
    model: Mapping[str, Any],
    verdicts: Sequence[Verdict],
    *,
    speaks: bool = False,
    note: str = "",
) -> str:
    """README.md with its YAML front matter, from the evaluation's metrics and statistics and the model's config.

    `speaks` says whether a vocoder is published with it, `note` what people must know besides the figures.
    """
    header = yaml.safe_dump(front_matter(config, verdicts, statistics), sort_keys=False, allow_unicode=True)
    return markdown(
        Path(__file__).parent / "templates" / "card.md.j2",
        header=header.strip(),
        config=config,
        statistics=statistics,
        model=model,
        metrics=metrics,
        languages=_languages(config, statistics),
        speaks=speaks,
        note=note,
        expressive="pitch" in statistics["units"],
        streams=_stream_rows(metrics),
        verdicts=verdicts,
        doing={task: doing for task, (_, doing) in _HUB.items()},
        who=WHO,
    )


def front_matter(config: PublishConfig, verdicts: Sequence[Verdict], statistics: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata that the Hugging Face hub reads (https://huggingface.co/docs/hub/model-cards)."""
    fields: dict[str, Any] = {
        "license": config.license,
        "language": _languages(config, statistics),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["speech", "spirit-lm", "speech-units", "hubert", "interleaved"],
        "metrics": ["wer"],
    }
    if config.license == "other":
        fields["license_name"] = "see-the-card"
    if config.base_model:
        fields["base_model"] = config.base_model
    if results := _results(verdicts):
        fields["model-index"] = [{"name": config.title, "results": results}]
    return fields


def _languages(config: PublishConfig, statistics: Mapping[str, Any]) -> list[str]:
    return list(config.languages) or [name for name in statistics["audio"]["hours_by_language"] if name != "unknown"]


def _results(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    lines = []
    for one in verdicts:
        if not one.group:
            task, doing = _HUB[one.task]
            name = "wer" if one.measure.startswith(("word error rate", "WER")) else one.measure.replace(" ", "_")
            entry = {"type": name, "value": round(100 * one.value, 2), "name": f"{doing}: {one.measure}"}
            dataset = {"type": one.on.replace(" ", "_").replace("-", "_"), "name": one.on}
            lines.append({"task": {"type": task}, "dataset": dataset, "metrics": [entry]})
    return lines


def _stream_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    keys = ("bits_per_token", "baseline_bits_per_token", "gain_bits", "gain_bits_low", "gain_bits_high", "tokens")
    for name, value in metrics.items():
        section, _, rest = name.partition("/")
        stream, _, key = rest.partition("/")
        if section == "loss" and key == keys[0] and value is not None:
            rows.append({"name": stream.replace(".", ": "), **{key: metrics[f"loss/{stream}/{key}"] for key in keys}})
    return rows
