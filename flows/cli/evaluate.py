"""``spiritlm evaluate``: models, and parts of the pipeline, judged on their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from flows.cli.flow import artifact_folder, run_recipe
from spiritlm_core.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, RecipeArgument, SetOption, SourceOption
from spiritlm_core.cli.results import answer, check_out, read_report
from spiritlm_core.errors import RecipeError


def units(
    recipe: RecipeArgument = "quickstart",
    lake: LakeOption = DEFAULT_LAKE,
    set_: SetOption = None,
    source: SourceOption = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME=FOLDER",
            help="One more speech tokenizer to compare: a folder, hf://… or file://…. May be repeated.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Also put units.json, units.md and units.html here.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the speech units of RECIPE with MFCC, its HuBERT iterations and given tokenizers, on held-out speech.

    Fits the unit models first where the lake lacks them. Transcripts are needed for phones only; without them the
    columns that do not need phones are still there.
    """
    check_out(out)
    overrides = [*(set_ or []), *map(_override, model or [])]

    def work() -> dict[str, Any]:
        result = _evaluate(recipe, lake, overrides, source or [])
        return {**result, "report": read_report(artifact_folder(lake, result, "unit_evaluation"), "units", out)}

    answer(work, _print, as_json=as_json)


def _print(result: dict[str, Any], stream: TextIO) -> None:
    from spiritlm_core.evaluate.units.table import table

    print(table(result["report"]).plain(), file=stream)
    print(f"report: {result['units']}", file=stream)


def _override(model: str) -> str:
    """``NAME=FOLDER`` as a setting of the recipe. Raises RecipeError."""
    from spiritlm_core.references.reference import as_reference

    name, equals, where = (part.strip() for part in model.partition("="))
    if not (name and equals and where) or "." in name:
        raise RecipeError(f"--model {model!r}: write NAME=FOLDER, for example --model ours=published/speech_tokenizer")
    return f"unit_evaluation.models.{name}={json.dumps(as_reference(where))}"


def _evaluate(recipe: str, lake: str, overrides: list[str], sources: list[str]) -> dict[str, Any]:
    """Check everything that can be wrong before a server is started; then run the flow."""
    from flows.recipes import find_recipe, with_sources
    from spiritlm_core.references.reference import resolve

    for reference in with_sources(find_recipe(recipe, overrides), sources).unit_evaluation.models.values():
        resolve(reference)
    return run_recipe("evaluate_units", recipe, lake, sources, overrides, until="unit_evaluation")
