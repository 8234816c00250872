"""``spiritlm lake``: look at a lake, check it, tidy it."""

import json
import time
from collections import Counter
from dataclasses import asdict
from typing import Annotated, Any

import typer

from spiritlm_core.cli.options import DEFAULT_LAKE, BegunLakeOption, JsonLinesOption, JsonOption
from spiritlm_core.errors import LakeError
from spiritlm_core.lake.care import collect_garbage
from spiritlm_core.lake.care import describe_size as size
from spiritlm_core.lake.care import verify as check
from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.usage import usage


def du(lake: BegunLakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """Say what the lake takes on the disk, used or not: by table and artifact, by recipe and by snapshot.

    The first size is that of all objects, the second of those that nothing else in the list has.
    """
    used = usage(Lake(lake))
    if as_json:
        typer.echo(json.dumps(asdict(used)))
        return
    for title, shares in (("tables and artifacts", used.names), ("recipes", used.recipes)):
        typer.echo(f"{title:<44} {'objects':>8} {'all':>10} {'own':>10}")
        for name, share in shares.items():
            typer.echo(f"  {name:<42} {share.objects:>8} {size(share.bytes):>10} {size(share.own):>10}")
    typer.echo("snapshots, the latest first")
    for one in used.snapshots:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.written))
        name, share = f"{one.table} {one.fingerprint[:12]}", one.share
        bytes_ = f"{size(share.bytes):>10} {size(share.own):>10}"
        typer.echo(f"  {name:<24} {when:<17} {share.objects:>8} {bytes_}  {', '.join(one.recipes)}".rstrip())
    free = f"of which gc would delete {size(used.unused)}; and {size(used.copies)} in cache and work"
    typer.echo(f"{size(used.bytes)} in all, {free}")


def show(
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="A table of the lake, such as audio, words, units or sequences.")
    ],
    lake: BegunLakeOption = DEFAULT_LAKE,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe whose table is shown; needed when several have one.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many rows; 0 for all.")] = 10,
    rejected: Annotated[bool, typer.Option("--rejected", help="Only rows that a stage gave up on.")] = False,
    as_json: JsonLinesOption = False,
) -> None:
    """Print rows of a table; audio is shown as its size in bytes."""
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


def verify(
    lake: BegunLakeOption = DEFAULT_LAKE,
    fast: Annotated[
        bool, typer.Option("--fast", help="Do not read shards and blobs, only see that they are there.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Read every object and say what is damaged or missing; exit status 1 if anything is."""
    count: Counter[str] = Counter()
    problems = list(check(Lake(lake), count, fast=fast))
    if as_json:
        damaged = [{"path": p.path, "problem": p.problem} for p in problems]
        typer.echo(json.dumps({"problems": damaged, "objects": count["objects"]}))
    else:
        for problem in problems:
            typer.echo(f"{problem.path}: {problem.problem}")
        typer.echo(f"{len(problems)} problems" if problems else "nothing is wrong")
        typer.echo(f"{count['objects']} objects")
    raise typer.Exit(1 if problems else 0)


def gc(
    lake: BegunLakeOption = DEFAULT_LAKE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete shards, artifacts and snapshots that no recipe uses any more."""
    sweep = collect_garbage(Lake(lake), dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps({"dry_run": dry_run, "paths": sweep.paths, "bytes": sweep.bytes}))
        return
    for path in sweep.paths:
        typer.echo(path)
    typer.echo(f"{len(sweep.paths)} objects, {size(sweep.bytes)} {'would be' if dry_run else 'were'} deleted")


def _snapshot(lake: Any, table: str, recipe: str | None) -> Any:
    refs = [ref for ref in lake.refs() if ref.name == table and ref.kind == "table" and recipe in (None, ref.recipe)]
    if not refs:
        have = sorted({f"{ref.name} ({ref.recipe})" for ref in lake.refs() if ref.kind == "table"})
        of = f" of recipe {recipe!r}" if recipe else ""
        raise LakeError(f"{lake.uri} has no table {table!r}{of}; it has {', '.join(have) or 'none yet'}")
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
