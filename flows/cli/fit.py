"""``spiritlm fit``: models fitted on recordings, without the rest of the pipeline."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, RecipeArgument, SetOption, SourceOption

app = typer.Typer(help="Fit models on recordings, without the rest of the pipeline.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Keeps ``units`` a subcommand while it is the only one."""


@app.command("units")
def units(
    recipe: RecipeArgument = "quickstart",
    lake: LakeOption = DEFAULT_LAKE,
    set_: SetOption = None,
    source: SourceOption = None,
    refit: Annotated[bool, typer.Option("--refit", help="Fit anew on the recordings as they are now.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Also put the folder here; an older speech tokenizer is replaced."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fit HuBERT, quantizer, pitch and style of RECIPE: one folder that SpeechTokenizer.from_pretrained loads.

    Needs recordings only: no transcripts, no alignment, no language model. A killed run goes on where it was.
    """
    from flows.cli.run import stdout_for_results

    began = time.monotonic()
    with stdout_for_results() as stream:
        result = _fit(recipe, lake, set_ or [], source or [], refit=refit, out=out)
        result["seconds"] = round(time.monotonic() - began, 1)
        if as_json:
            print(json.dumps(result, allow_nan=False), file=stream)
        else:
            from flows.cli.summary import print_summary

            print_summary(result, stream)


def _fit(
    recipe: str, lake: str, overrides: list[str], sources: list[str], *, refit: bool, out: Path | None
) -> dict[str, Any]:
    """Check everything that can be wrong before a server is started; then run the flow."""
    from flows.recipes import find_recipe
    from spiritlm_core.audio.config import parse_source
    from spiritlm_core.lake.lake import Lake
    from spiritlm_core.units.folder import check_target
    from tasks.delivery import copy_speech_tokenizer
    from tasks.prefect_server import api

    began = time.monotonic()
    find_recipe(recipe, overrides)
    for source in sources:
        parse_source(source)
    if out is not None:
        check_target(out)
    with api():
        from flows.pipeline import fit_units

        ready = time.monotonic()
        state = fit_units(recipe, lake, sources, overrides, refit, return_state=True)
        result: dict[str, Any] = state.result()
    if out is not None:
        copy_speech_tokenizer(Lake(lake), result["stages"]["speech_tokenizer"]["fingerprint"], out)
        result["speech_tokenizer"] = str(out)
    return {**result, "startup_seconds": round(ready - began, 1)}
