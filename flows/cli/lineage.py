"""``spiritlm forget``: take recordings back; ``spiritlm lineage``: what a model was made with, and the reverse."""

import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from flows.cli.flow import some
from spiritlm_core.cli.options import DEFAULT_LAKE, BegunLakeOption, JsonOption, LakeOption, answer, begun_lake
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.stage import ArtifactStage
from spiritlm_core.lineage import forget as taking_back
from spiritlm_core.lineage.model import lineage_of
from spiritlm_core.references.reference import local_path


def forget(
    lake: BegunLakeOption = DEFAULT_LAKE,
    speaker: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="All recordings of this speaker. May be repeated.")
    ] = None,
    recording: Annotated[
        list[str] | None, typer.Option(metavar="URI", help="A recording: path, URI or recording_id. May be repeated.")
    ] = None,
    list_: Annotated[
        Path | None, typer.Option("--list", metavar="FILE", help="A file that names a recording on each line.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what holds them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take recordings back: the lake never takes them in again, and says what holds them or was made with them.

    The next run of a recipe goes without them, and `spiritlm lake gc` then deletes their bytes. Without anyone named it
    says how far what was forgotten so far is gone.
    """

    def work() -> dict[str, Any]:
        named = (*(recording or ()), *(taking_back.read_list(list_) if list_ else ()))
        wanted = taking_back.Wanted(tuple(speaker or ()), named)
        statement = with_commands(taking_back.forget(Lake(lake), wanted, dry_run=dry_run))
        return {"dry_run": dry_run and bool(wanted), **statement}

    answer(work, _show, as_json=as_json)


def lineage(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help="Folder of a published model, hf://ORG/NAME, or a recipe that made one."
        ),
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    recordings: Annotated[bool, typer.Option("--recordings", help="Name every recording, with its licence.")] = False,
    of: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URI", help="The reverse: what holds this recording, or was made with it. May be repeated."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which tables, models and recordings MODEL was made with, under which licences; or what a recording is in."""
    if (model is None) == (not of):
        raise SpiritLMError("give a MODEL, or recordings with --of URI")
    if model and "://" in model:
        model = str(local_path(model))
    if of or not Path(str(model)).is_dir():  # a published folder tells of itself
        begun_lake(lake)
    if of:
        wanted = taking_back.Wanted(recordings=tuple(of))
        answer(lambda: taking_back.forget(Lake(lake), wanted, dry_run=True), _show_holders, as_json=as_json)
    else:
        answer(lambda: lineage_of(str(model), Lake(lake), told=recordings), _show_lineage, as_json=as_json)


def _show_holders(statement: dict[str, Any], out: TextIO) -> None:
    for line in (*some([one["source_uri"] for one in statement["recordings"]]), *_tables(statement)):
        print(line, file=out)
    for one in statement["made_with"]:
        print(f"  {one['name']:<18} of {one['recipe']}, {one['key'][:12]}, {one['how']}", file=out)
    for path in statement["exports"]:
        print(f"  exported to {path}", file=out)


def _show_lineage(found: dict[str, Any], out: TextIO) -> None:
    for kind in ("recipe", "variant", "task", "base"):
        if kind in found:
            print(f"{kind}: {found[kind]}", file=out)
    for kind in ("tables", "artifacts", "given"):
        for name, what in found.get(kind, {}).items():
            print(f"  {kind.removesuffix('s')} {name:<18} {what if kind == 'given' else what[:12]}", file=out)
    if "missing" in found:
        print(found["missing"], file=out)
        return
    hours = ", ".join(f"{name} {value:.2f} h" for name, value in found["hours_by_licence"].items())
    print(f"{found['count']} recordings: {hours}", file=out)
    for one in found.get("recordings", ()):
        said = [one[name] for name in ("speaker", "split", "licence", "consent", "expires") if one[name]]
        print(f"  {one['source_uri']}  {one['seconds']:.1f} s  {', '.join(said)}", file=out)


def with_commands(statement: dict[str, Any]) -> dict[str, Any]:
    """`statement` with the command that makes each artifact anew, and with those that make the lake clean."""
    lake, finetuned = statement["lake"], {one["recipe"] for one in statement["tables"] if one["name"] == "task_units"}
    unclean = {one["recipe"]: None for one in statement["tables"] if not one["clean"]}
    steps = [_command(recipe, lake, finetuned) for recipe in unclean]
    made = [{**one, "command": _command(one["recipe"], lake, finetuned, one["name"])} for one in statement["made_with"]]
    refit = {one["recipe"] for one in made if "--refit" in one["command"]}
    steps += [f"{_command(recipe, lake, finetuned)} --refit  # fits its kept models, too" for recipe in sorted(refit)]
    return {**statement, "made_with": made, "next": [*steps, f"spiritlm lake gc --lake {lake}"]}


def _command(recipe: str, lake: str, finetuned: set[str], stage: str = "") -> str:
    """What makes a stage of a recipe anew, or all of it; a pinned model is only fitted again if that is asked for."""
    from flows.recipes import FINETUNE, recipe_names

    if recipe in finetuned:
        name = recipe if recipe in recipe_names(FINETUNE) else f"{recipe}.yaml"
        return f"spiritlm finetune {name} --lake {lake}"
    name = recipe if recipe in recipe_names() else f"{recipe}.yaml"
    refit = " --refit" if stage in _pinned() else ""
    return f"spiritlm run {name} --lake {lake}{refit}{f' --until {stage}' if stage else ''}"


@cache
def _pinned() -> frozenset[str]:
    """The names of the stages whose artifacts are kept when the corpus changes."""
    from flows.graphs.speech_lm import speech_lm
    from flows.recipes import find_recipe

    stages = (node.stage for node in speech_lm(find_recipe("scratch", ["speakers={}"])).nodes.values())
    return frozenset(stage.name for stage in stages if issubclass(stage, ArtifactStage) and stage.pinned)


def _show(statement: dict[str, Any], out: TextIO) -> None:
    told = statement["recordings"]
    if not statement["tombstones"]:
        print(f"nobody is named, and nothing was forgotten on {statement['lake']} so far: nothing to do", file=out)
        return
    print(f"{len(told)} recordings, {statement['hours']:.2f} hours of speech, on {statement['lake']}", file=out)
    for line in (*some([one["source_uri"] for one in told]), *_tables(statement), *_made(statement)):
        print(line, file=out)
    if statement["copies"]:
        print("other recordings of the same speech, which join at the next run where they were left out:", file=out)
        command = f"spiritlm forget --lake {statement['lake']} --recording"
        for line in some([f"{command} {shlex.quote(uri)}" for uri in statement["copies"]]):
            print(line, file=out)
    if there := taking_back.still_there([one["source_uri"] for one in told]):
        print(f"{there} of these files lie on this disk: nothing outside of a lake is deleted, that is yours", file=out)
    if statement["dry_run"]:
        never = "they never come in again" if told else "what is named never comes in"
        print(f"Nothing was changed. Without --dry-run {never}.", file=out)
    elif told or statement["made_with"]:
        print("They never come in again.", file=out)
    if not (told or statement["made_with"] or statement["unused"]):
        left = "the exports above are left to you" if statement["exports"] else "nothing is left to do"
        print(f"The lake holds nothing of them: {left}.", file=out)
        return
    again = "with the options that the runs had before (path of the recipe, --source, --set, …)"
    print(f"{'Then' if statement['dry_run'] else 'What is left to do'}, {again}:", file=out)
    for command in statement["next"]:
        print(f"  {command}", file=out)


def _tables(statement: dict[str, Any]) -> Iterator[str]:
    for recipe in dict.fromkeys(one["recipe"] for one in statement["tables"]):
        own = [one for one in statement["tables"] if one["recipe"] == recipe]
        holding = ", ".join(one["name"] for one in own if not one["clean"])
        clean = ", ".join(one["name"] for one in own if one["clean"])
        yield f"tables of {recipe}: " + "; ".join(
            [*([f"they are in {holding}"] if holding else []), *([f"clean: {clean}"] if clean else [])]
        )


def _made(statement: dict[str, Any]) -> Iterator[str]:
    made, exports = statement["made_with"], statement["exports"]
    yield f"made with them and in use: {len(made)} artifacts" if made else "nothing in use was made with them"
    for one in made:
        yield f"  {one['name']:<18} of {one['recipe']}, {one['key'][:12]}, {one['how']}: {one['command']}"
    for path in exports:
        gone = "" if Path(path).exists() else "; it is not on this machine now"
        yield f"  exported to {path}: delete it, or export it again{gone}"
    if statement["unused"]:
        yield f"made with them and not in use: {statement['unused']} artifacts, which gc deletes"
