"""``spiritlm run``, ``fit`` and ``finetune``: a recipe, or the first part of it; unit models, a vocoder, one task."""

import shutil
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from flows.cli.flow import artifact_folder, console_on, print_summary, run_or_reuse, run_recipe, stage_table
from spiritlm_core.cli.options import (
    DEFAULT_LAKE,
    JsonOption,
    LakeOption,
    RecipeArgument,
    SetOption,
    SourceOption,
    answer,
    check_out,
)
from spiritlm_core.errors import SourceError, SpiritLMError


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
    from flows.cli.plan import planned, show_plan

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


def units(
    recipe: RecipeArgument = "quickstart",
    lake: LakeOption = DEFAULT_LAKE,
    set_: SetOption = None,
    source: SourceOption = None,
    refit: RefitOption = False,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit HuBERT, quantizer, pitch and style of RECIPE: one folder that SpeechTokenizer.from_pretrained loads.

    Needs recordings only: no transcripts, no alignment, no language model. A killed run goes on where it was.
    """
    given = (recipe, lake, source or [], set_ or [])
    answer(lambda: _fit("fit_units", "speech_tokenizer", given, out, refit=refit), print_summary, as_json=as_json)


def vocoder(
    recipe: RecipeArgument = "quickstart",
    lake: LakeOption = DEFAULT_LAKE,
    set_: SetOption = None,
    source: SourceOption = None,
    refit: RefitOption = False,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit a vocoder for the units of RECIPE: one folder with the unit models that turns speech into units and back.

    Needs recordings only. What `spiritlm fit units` has fitted is used; a killed run goes on where it was.
    """
    given = (recipe, lake, source or [], set_ or [])
    answer(lambda: _fit("fit_vocoder", "speaking_tokenizer", given, out, refit=refit), print_summary, as_json=as_json)


def _fit(
    flow: str, stage: str, given: tuple[str, str, list[str], list[str]], out: Path | None, *, refit: bool
) -> dict[str, Any]:
    """Run `flow` up to `stage` on a recipe, a lake, sources and settings, and put its folder where it is asked for."""
    from spiritlm_core.speech.folder import check_target, put_speech_tokenizer

    check_out(out)
    if out is not None:
        check_target(out)
    result = run_recipe(flow, *given, until=stage, refit=refit)
    if out is not None:
        put_speech_tokenizer(artifact_folder(given[1], result, stage), out)
        result["speech_tokenizer"] = str(out)
    return result


def finetune(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="asr, tts, classification, speech-to-speech, instruction, or path of a .yaml file.",
        ),
    ],
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="The data set: a .parquet or .jsonl file, or a folder of them.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The model to start from: a published folder, hf://…, or lake://RECIPE."),
    ] = None,
    set_: SetOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Also put the model here: a new or empty folder.")
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be computed and why, as `spiritlm plan` does.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a published model: all its weights, or adapters (--set 'lm.lora={rank: 16}').

    The loss counts answers alone. A run that was killed goes on where it was; what the lake has is not computed again.
    """
    from flows.cli.plan import show_plan

    def work() -> dict[str, Any]:
        return _finetuned(recipe, data, base, set_ or [], out, lake, dry_run=dry_run)

    answer(work, show_plan if dry_run else _print, as_json=as_json)


def _finetuned(
    recipe: str,
    data: str | None,
    base: str | None,
    overrides: list[str],
    out: Path | None,
    lake: str,
    *,
    dry_run: bool,
) -> dict[str, Any]:
    """Check what can be wrong before a server is started; then plan, or run the flow."""
    from flows.cli.plan import previewed
    from flows.graphs.finetuning import finetuning
    from flows.recipes import load_finetune_recipe
    from spiritlm_core.lake.lake import Lake
    from spiritlm_core.plan.graph import plan_graph

    settings, opened = load_finetune_recipe(recipe, data, base, overrides), Lake(lake)
    _check_given(settings.base, settings.data.path)
    if not dry_run and out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SpiritLMError(f"--out {out}: is there already, and not empty; name a new folder")
    graph = finetuning(settings, opened)
    if dry_run:
        return previewed(plan_graph(graph, opened), lake)
    given = {"recipe": recipe, "lake": lake, "data": data, "base": base, "overrides": overrides}
    result = run_or_reuse("finetune", given, graph, ())
    if out is not None:
        folder = artifact_folder(lake, result, "finetune_published")
        shutil.copytree(folder, out, dirs_exist_ok=True, copy_function=shutil.copyfile)
        result["model"] = str(out)
    return result


def _check_given(base: str, data: str) -> None:
    """Whether what lies on this machine is there."""
    from spiritlm_core.lm.model.folder import locate

    if "://" not in base:
        locate(Path(base).expanduser())
    if "://" not in data and not Path(data).expanduser().exists():
        raise SourceError(f"data {data}: there is no such file or folder")


def _print(result: dict[str, Any], stream: TextIO) -> None:
    """The stages, then the held-out figures before and after."""
    from rich.table import Table

    console = console_on(stream)
    console.print(stage_table(result["stages"]))
    metrics = result["metrics"]
    table = Table(f"{metrics['held_out']} held-out examples", "before", "after")
    for name, after in metrics["after"].items():
        table.add_row(name, *("" if value is None else f"{value:g}" for value in (metrics["before"].get(name), after)))
    console.print(table)
    for line in (f"model: {result['model']}", f"done in {result['seconds']:.0f} s"):
        console.print(line, soft_wrap=True)
