"""The model card: what the model is, what it was made from, what it can do, and what it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spiritlm_core.publish.config import PublishConfig
from spiritlm_core.tokens.config import PAIRS

_STREAMS = ("text", "speech", "interleaved", "interleaved.text", "interleaved.speech", *PAIRS)
_TASKS = {
    "speech_to_text": ("wer", "automatic-speech-recognition", "Few-shot speech→text, word error rate"),
    "text_to_speech": ("unit_error_rate", "text-to-speech", "Few-shot text→speech, HuBERT unit error rate"),
}


def model_card(
    config: PublishConfig,
    metrics: Mapping[str, Any],
    statistics: Mapping[str, Any],
    model: Mapping[str, Any],
    *,
    speaks: bool = False,
) -> str:
    """README.md with its YAML front matter.

    Args:
        config: Title, licence and the paragraphs written by hand.
        metrics: metrics.json of the evaluation.
        statistics: statistics.json of the evaluation.
        model: config.json of the model.
        speaks: whether a vocoder is published with it.
    """
    import yaml
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).with_name("templates"))
    environment = Environment(
        loader=loader,
        autoescape=False,  # noqa: S701 - Markdown, not HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    header = yaml.safe_dump(front_matter(config, metrics, statistics), sort_keys=False, allow_unicode=True)
    return environment.get_template("card.md.j2").render(
        header=header.strip(),
        config=config,
        statistics=statistics,
        model=model,
        metrics=metrics,
        languages=_languages(config, statistics),
        speaks=speaks,
        expressive="pitch" in statistics["units"],
        streams=_stream_rows(metrics),
        tasks=_task_rows(metrics),
    )


def front_matter(config: PublishConfig, metrics: Mapping[str, Any], statistics: Mapping[str, Any]) -> dict[str, Any]:
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
    if results := _results(metrics):
        fields["model-index"] = [{"name": config.title, "results": results}]
    return fields


def _languages(config: PublishConfig, statistics: Mapping[str, Any]) -> list[str]:
    return list(config.languages) or [name for name in statistics["audio"]["hours_by_language"] if name != "unknown"]


def _results(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    lines = []
    for task, (rate, hub_task, title) in _TASKS.items():
        value = metrics.get(f"fewshot/{task}/{rate}")
        if value is not None:
            entry = {
                "type": "wer" if rate == "wer" else "unit_error_rate",
                "value": round(100 * value, 2),
                "name": title,
            }
            dataset = {"type": "held_out", "name": "held-out recordings of the corpus"}
            lines.append({"task": {"type": hub_task}, "dataset": dataset, "metrics": [entry]})
    return lines


def _stream_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for stream in _STREAMS:
        keys = ("bits_per_token", "baseline_bits_per_token", "gain_bits", "gain_bits_low", "gain_bits_high", "tokens")
        row = {key: metrics.get(f"loss/{stream}/{key}") for key in keys}
        if row["bits_per_token"] is not None:
            rows.append({"name": stream.replace(".", ": "), **row})
    return rows


def _task_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for task, (rate, _, title) in _TASKS.items():
        prefix = f"fewshot/{task}/"
        if metrics.get(prefix + rate) is not None:
            names = ("", "shuffled_", "random_", "fixed_", "nothing_")
            rates = {name.rstrip("_") or "model": metrics.get(f"{prefix}{name}{rate}") for name in names}
            bounds = (metrics[f"{prefix}{rate}_low"], metrics[f"{prefix}{rate}_high"])
            row: dict[str, Any] = {"title": title, "rates": rates, "bounds": bounds}
            row |= {name: metrics[prefix + name] for name in ("utterances", "beats_trivial")}
            rows.append(row)
    return rows
