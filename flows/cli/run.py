"""``spiritlm run``: a whole recipe, or the first part of it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TextIO

import typer

from flows.cli.flow import run_flow
from flows.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, RecipeArgument, SetOption, SourceOption


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("run")(run)


def run(
    recipe: RecipeArgument = "quickstart",
    lake: LakeOption = DEFAULT_LAKE,
    set_: SetOption = None,
    source: SourceOption = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Run this stage and what it is made from.")] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Fit unit models, aligner and tokenizer anew on the corpus as it is now.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run RECIPE: compute what the lake does not hold yet. A run that was killed goes on where it was."""
    began = time.monotonic()
    with stdout_for_results() as out:
        result = _run(recipe, lake, set_ or [], source or [], until=until, refit=refit)
        result["seconds"] = round(time.monotonic() - began, 1)
        if as_json:
            print(json.dumps(result, allow_nan=False), file=out)
        else:
            from flows.cli.summary import print_summary

            print_summary(result, out)


def _run(
    recipe: str, lake: str, overrides: list[str], sources: list[str], *, until: str | None, refit: bool
) -> dict[str, Any]:
    """Check everything that can be wrong before a server is started; then run the flow."""
    from flows.recipes import find_recipe, with_sources
    from flows.stages import wanted_stages

    wanted_stages(with_sources(find_recipe(recipe, overrides), sources), until)
    return run_flow("pipeline", "pipeline", recipe, lake, sources, overrides, until, refit)


@contextmanager
def stdout_for_results() -> Iterator[TextIO]:
    """Standard output for the result alone: whatever a library prints meanwhile goes to standard error."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(saved), "w", encoding="utf-8") as out:
            yield out
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
