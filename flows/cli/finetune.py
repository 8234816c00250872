"""``spiritlm finetune``: a published model trained further for one task, on a data set of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from flows.cli.flow import artifact_folder, run_or_reuse, stage_table
from flows.cli.plan import previewed, show_plan
from spiritlm_core.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, SetOption
from spiritlm_core.cli.results import answer
from spiritlm_core.errors import SourceError, SpiritLMError


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
    if dry_run:
        answer(lambda: _planned(recipe, data, base, set_ or [], lake), show_plan, as_json=as_json)
    else:
        answer(lambda: _run(recipe, data, base, set_ or [], out, lake), _print, as_json=as_json)


def _planned(recipe: str, data: str | None, base: str | None, overrides: list[str], lake: str) -> dict[str, Any]:
    from flows.graphs.finetuning import finetuning
    from flows.recipes import load_finetune_recipe
    from spiritlm_core.lake.lake import Lake
    from spiritlm_core.plan.graph import plan_graph

    settings, opened = load_finetune_recipe(recipe, data, base, overrides), Lake(lake)
    _check_given(settings.base, settings.data.path)
    return previewed(plan_graph(finetuning(settings, opened), opened), lake)


def _run(
    recipe: str, data: str | None, base: str | None, overrides: list[str], out: Path | None, lake: str
) -> dict[str, Any]:
    """Check what can be wrong before a server is started; then run the flow."""
    import shutil

    from flows.graphs.finetuning import finetuning
    from flows.recipes import load_finetune_recipe
    from spiritlm_core.lake.lake import Lake

    settings = load_finetune_recipe(recipe, data, base, overrides)
    _check_given(settings.base, settings.data.path)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SpiritLMError(f"--out {out}: is there already, and not empty; name a new folder")
    given = {"recipe": recipe, "lake": lake, "data": data, "base": base, "overrides": overrides}
    result = run_or_reuse("finetune", given, finetuning(settings, Lake(lake)), ())
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
    from rich.console import Console
    from rich.table import Table

    console = Console(file=stream, highlight=False, width=None if stream.isatty() else 110)
    console.print(stage_table(result["stages"]))
    metrics = result["metrics"]
    table = Table(f"{metrics['held_out']} held-out examples", "before", "after")
    for name, after in metrics["after"].items():
        table.add_row(name, *("" if value is None else f"{value:g}" for value in (metrics["before"].get(name), after)))
    console.print(table)
    for line in (f"model: {result['model']}", f"done in {result['seconds']:.0f} s"):
        console.print(line, soft_wrap=True)
