"""``spiritlm lake``: look at a lake, check it, tidy it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated, Any

import typer

from spiritlm_core.cli.options import DEFAULT_LAKE, JsonLinesOption, JsonOption, LakeOption
from spiritlm_core.errors import LakeError


def ls(lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """List what is stored, used or not: objects and bytes of every table and artifact (of recipes: spiritlm status)."""
    from spiritlm_core.lake.care import describe_size
    from spiritlm_core.lake.lake import Lake

    stored = _stored(Lake(lake))
    if as_json:
        typer.echo(json.dumps(stored))
        return
    if not stored:
        typer.echo(f"there is nothing in {lake}")
    for name, about in stored.items():
        used = f"  {', '.join(about['recipes'])}" if about["recipes"] else ""
        typer.echo(f"{name:<28} {about['objects']:>6} objects {describe_size(about['bytes']):>10}{used}")


def _stored(lake: Any) -> dict[str, dict[str, Any]]:
    """Per folder of the lake: how many objects, how many bytes, and the recipes that refer to some of them."""
    stored: dict[str, dict[str, Any]] = {}
    for kind in ("tables", "artifacts", "snapshots", "blobs", "outputs"):
        for entry in lake.store.walk(kind):
            name = "/".join(entry.path.split("/")[:2]) if kind != "blobs" else kind
            about = stored.setdefault(name, {"objects": 0, "bytes": 0, "recipes": []})
            about["objects"] += 1
            about["bytes"] += entry.size
    for ref in lake.refs():
        if (name := f"{ref.kind}s/{ref.name}") in stored:
            stored[name]["recipes"].append(ref.recipe)
    return stored


def show(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="audio, words, units, sequences or examples.")],
    lake: LakeOption = DEFAULT_LAKE,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe whose table is shown; needed when several have one.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many rows; 0 for all.")] = 10,
    rejected: Annotated[bool, typer.Option("--rejected", help="Only rows that a stage gave up on.")] = False,
    as_json: JsonLinesOption = False,
) -> None:
    """Print rows of a table; audio is shown as its size in bytes."""
    from spiritlm_core.lake.lake import Lake

    opened = Lake(lake)
    snapshot = _snapshot(opened, table, recipe)
    shown = 0
    for shard in opened.view(snapshot).shards():
        for row in shard.to_pylist():
            if rejected and row["reject_stage"] is None:
                continue
            if limit and shown == limit:
                return
            shown += 1
            _print_row(row, as_json=as_json)


def verify(lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """Read every object and say what is damaged or missing; exit status 1 if anything is."""
    from spiritlm_core.lake.care import verify as check
    from spiritlm_core.lake.lake import Lake

    count: Counter[str] = Counter()
    problems = list(check(Lake(lake), count))
    if as_json:
        damaged = [{"path": p.path, "problem": p.problem} for p in problems]
        typer.echo(json.dumps({"problems": damaged, "objects": count["objects"]}))
    else:
        for problem in problems:
            typer.echo(f"{problem.path}: {problem.problem}")
        well = "nothing is wrong" if count["objects"] else f"there is nothing in {lake}"
        typer.echo(f"{len(problems)} problems" if problems else well)
        typer.echo(f"{count['objects']} objects")
    raise typer.Exit(1 if problems else 0)


def gc(
    lake: LakeOption = DEFAULT_LAKE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete shards, artifacts and snapshots that no recipe uses any more."""
    from spiritlm_core.lake.care import collect_garbage, describe_size
    from spiritlm_core.lake.lake import Lake

    sweep = collect_garbage(Lake(lake), dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps({"dry_run": dry_run, "paths": sweep.paths, "bytes": sweep.bytes}))
        return
    for path in sweep.paths:
        typer.echo(path)
    typer.echo(f"{len(sweep.paths)} objects, {describe_size(sweep.bytes)} {'would be' if dry_run else 'were'} deleted")


def _snapshot(lake: Any, table: str, recipe: str | None) -> Any:
    refs = [ref for ref in lake.refs() if ref.name == table and ref.kind == "table" and recipe in (None, ref.recipe)]
    if not refs:
        have = sorted({f"{ref.name} ({ref.recipe})" for ref in lake.refs() if ref.kind == "table"})
        raise LakeError(f"{lake.uri} has no table {table!r}; it has {', '.join(have) or 'none yet'}")
    if len(refs) > 1:
        names = ", ".join(ref.recipe for ref in refs)
        raise LakeError(f"several recipes have a table {table!r} ({names}); choose one with --recipe")
    return lake.read_snapshot(table, refs[0].target)


def _print_row(row: dict[str, Any], *, as_json: bool) -> None:
    values = {key: f"{len(value)} bytes" if isinstance(value, bytes) else value for key, value in row.items()}
    if as_json:
        typer.echo(json.dumps(values, ensure_ascii=False))
        return
    for key, value in values.items():
        if value is not None:
            typer.echo(f"{key:>15}: {_short(value)}")
    typer.echo("")


def _short(value: Any, limit: int = 200) -> str:
    text = str(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
