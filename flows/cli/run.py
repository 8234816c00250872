"""``spiritlm run``: a whole recipe, or the first part of it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli.flow import run_recipe
from flows.cli.plan import planned, show_plan
from spiritlm_core.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, RecipeArgument, SetOption, SourceOption
from spiritlm_core.cli.results import answer


def run(
    recipe: RecipeArgument = "quickstart",
    lake: LakeOption = DEFAULT_LAKE,
    set_: SetOption = None,
    source: SourceOption = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Run this stage and what it is made from; corpus: up to the training."),
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Fit unit models, aligner and tokenizer anew on the corpus as it is now.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be computed and why, as `spiritlm plan` does.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run RECIPE: compute what the lake does not hold yet. A run that was killed goes on where it was."""
    from flows.cli.summary import print_summary

    def work() -> dict[str, Any]:
        if dry_run:
            return planned(recipe, lake, source or [], set_ or [], until, refit=refit)
        return run_recipe("pipeline", recipe, lake, source or [], set_ or [], until=until, refit=refit)

    answer(work, show_plan if dry_run else print_summary, as_json=as_json)
