"""``spiritlm status``: what the lake says of a recipe, without Prefect and Ray; ``spiritlm ui``: what Prefect shows."""

import json
import time
from typing import Annotated, Any

import typer

from spiritlm_core.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, no_lake
from spiritlm_core.errors import LakeError
from spiritlm_core.lake.care import describe_size, resolve_ref
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.lease import live_leases
from spiritlm_core.lake.snapshot import Snapshot


def status(lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """Say how far every recipe of a lake is, and who works on it now. Read from the lake alone."""
    opened = Lake(lake)
    state = {
        "lake": opened.uri,
        "running": [
            {"recipe": x.recipe, "kind": x.kind, "host": x.host, "pid": x.pid} for x in live_leases(opened.store)
        ],
        "recipes": _recipes(opened),
    }
    if as_json:
        typer.echo(json.dumps(state))
    else:
        _print(state, begun=opened.is_begun())


def _recipes(lake: Any) -> dict[str, dict[str, Any]]:
    from flows.graphs.speech_lm import speech_lm
    from flows.recipes import find_recipe

    order = [*speech_lm(find_recipe("quickstart", ["texts=[{path: any}]"])).nodes]
    stages: dict[str, dict[str, Any]] = {}
    for ref in sorted(lake.refs(), key=lambda ref: (ref.recipe, order.index(ref.name) if ref.name in order else 99)):
        stages.setdefault(ref.recipe, {})[ref.name] = _stage(lake, ref)
    return stages


def _stage(lake: Any, ref: Any) -> dict[str, Any]:
    about = {"kind": ref.kind, "fingerprint": ref.target, "updated": ref.updated}
    try:
        target = resolve_ref(lake, ref)
    except LakeError as error:
        return {**about, "error": str(error)}
    if isinstance(target, Snapshot):
        totals = target.totals
        rows = {"rows_out": totals.rows_out, "rejected": totals.rejected, "shards": len(target.shards)}
        return {**about, **rows, "hours": round(totals.audio_seconds / 3600, 4)}
    return {**about, "files": len(target.files), "bytes": sum(target.sizes.values()), "seconds": target.seconds}


def _print(state: dict[str, Any], *, begun: bool) -> None:
    if not state["recipes"]:
        typer.echo(f"{state['lake']}: no recipe has finished a stage yet" if begun else no_lake(state["lake"]))
    for recipe, stages in state["recipes"].items():
        typer.echo(f"{recipe}  ({state['lake']})")
        for name, stage in stages.items():
            typer.echo(f"  {name:<11} {_line(stage)}")
    for work in state["running"]:
        typer.echo(f"working now: {work['kind']} {work['recipe']} (pid {work['pid']} on {work['host']})")


def _line(stage: dict[str, Any]) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(stage["updated"]))
    if "error" in stage:
        return f"BROKEN: {stage['error']}"
    if stage["kind"] == "table":
        hours = f", {stage['hours']:.2f} h" if stage["hours"] else ""
        what = f"{stage['rows_out']} rows, {stage['rejected']} rejected, {stage['shards']} shards{hours}"
    else:
        what = f"{stage['files']} files, {describe_size(stage['bytes'])}"
    return f"{stage['fingerprint'][:12]}  {when}  {what}"


def ui(
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
    seconds: Annotated[float | None, typer.Option(hidden=True, help="Leave after so many seconds.")] = None,
) -> None:
    """Show runs, their progress, tables and pictures in the Prefect UI, on this machine only, until Ctrl-C."""
    from tasks.prefect_server import api

    with api() as url:
        address = url.removesuffix("/api")
        typer.echo(f"Prefect UI: {address}  (Ctrl-C ends it)")
        if browser:
            import webbrowser

            webbrowser.open(address)
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            while deadline is None or time.monotonic() < deadline:
                time.sleep(0.5)
        except KeyboardInterrupt:
            typer.echo("closed")
