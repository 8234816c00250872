"""``spiritlm run``: a whole recipe, or the first part of it; ``spiritlm fit``: unit models, or a vocoder, alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.flow import artifact_folder, print_summary, run_recipe
from flows.cli.plan import planned, show_plan
from spiritlm_core.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, RecipeArgument, SetOption, SourceOption
from spiritlm_core.cli.results import answer, check_out


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

    def work() -> dict[str, Any]:
        if dry_run:
            return planned(recipe, lake, source or [], set_ or [], until, refit=refit)
        return run_recipe("pipeline", recipe, lake, source or [], set_ or [], until=until, refit=refit)

    answer(work, show_plan if dry_run else print_summary, as_json=as_json)


RefitOption = Annotated[bool, typer.Option("--refit", help="Fit anew on the recordings as they are now.")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Also put the folder here; an older speech tokenizer is replaced."),
]


def _fitting(flow: str, stage: str, about: str) -> Callable[..., None]:
    """The command that runs `flow` up to `stage`, and puts the folder of that where it is asked for."""

    def fit(
        recipe: RecipeArgument = "quickstart",
        lake: LakeOption = DEFAULT_LAKE,
        set_: SetOption = None,
        source: SourceOption = None,
        refit: RefitOption = False,
        out: OutOption = None,
        as_json: JsonOption = False,
    ) -> None:
        from spiritlm_core.speech.folder import check_target, put_speech_tokenizer

        check_out(out)
        if out is not None:
            check_target(out)

        def work() -> dict[str, Any]:
            result = run_recipe(flow, recipe, lake, source or [], set_ or [], until=stage, refit=refit)
            if out is not None:
                put_speech_tokenizer(artifact_folder(lake, result, stage), out)
                result["speech_tokenizer"] = str(out)
            return result

        answer(work, print_summary, as_json=as_json)

    fit.__doc__ = about
    return fit


units = _fitting(
    "fit_units",
    "speech_tokenizer",
    """Fit HuBERT, quantizer, pitch and style of RECIPE: one folder that SpeechTokenizer.from_pretrained loads.

    Needs recordings only: no transcripts, no alignment, no language model. A killed run goes on where it was.
    """,
)
vocoder = _fitting(
    "fit_vocoder",
    "speaking_tokenizer",
    """Fit a vocoder for the units of RECIPE: one folder with the unit models that turns speech into units and back.

    Needs recordings only. What `spiritlm fit units` has fitted is used; a killed run goes on where it was.
    """,
)
