"""``spiritlm corpus``: look at the training sequences of a finished corpus, and write them for other trainers."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spiritlm_core.cli.options import DEFAULT_LAKE, JsonLinesOption, JsonOption, LakeOption, RecipeArgument, SetOption
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.export.folder import export_segments
from spiritlm_core.export.segments import Segments
from spiritlm_core.lake.care import note_export
from spiritlm_core.lake.forgotten import refuse_forgotten
from spiritlm_core.lake.lake import Lake
from spiritlm_core.plan.changes import last_settings
from spiritlm_core.tokens.export import Counts, check_target
from spiritlm_core.tokens.export import export as write
from spiritlm_core.tokens.finished import FinishedCorpus
from spiritlm_core.tokens.preview import lines, previews

if TYPE_CHECKING:
    from spiritlm_core.recipe import Recipe

SplitOption = Annotated[
    Literal["train", "held_out"], typer.Option("--split", help="Part of the corpus: train or held out.")
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", min=0, help="Seed of order and spans, instead of the recipe's lm.seed.")
]

_READ = frozenset({"name", "description", "compute", "keep", "sharding", "tokens", "lm"})
"""Parts of a recipe that are read with the tables, or that change nothing in them."""

_STYLES: dict[str, dict[str, Any]] = {
    "head": {"bold": True},
    "marker": {"fg": "yellow", "bold": True},
    "word": {"fg": "green"},
    "speech": {"fg": "cyan"},
    "note": {"dim": True},
}


def preview(
    recipe: RecipeArgument = "quickstart",
    lake: LakeOption = DEFAULT_LAKE,
    set_: SetOption = None,
    stream: Annotated[
        Literal["text", "speech", "interleaved", "asr", "tts", "classification"],
        typer.Option(help="Stream of the documents."),
    ] = "interleaved",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many documents.")] = 3,
    split: SplitOption = "train",
    epoch: Annotated[int, typer.Option(min=0, help="Epoch to show; spans are drawn anew in each.")] = 0,
    seed: SeedOption = None,
    width: Annotated[
        int | None, typer.Option(min=0, help="Columns of a line, instead of the terminal's; 0 shows every token.")
    ] = None,
    as_json: JsonLinesOption = False,
) -> None:
    """Print documents of RECIPE's corpus as training sees them: markers, words, and the speech tokens of each word."""
    loaded, corpus = _open(recipe, lake, set_)
    seed = loaded.lm.seed if seed is None else seed
    columns = width if width is not None else shutil.get_terminal_size((120, 24)).columns
    for number, document in enumerate(
        previews(corpus, stream=stream, count=count, split=split, seed=seed, epoch=epoch), 1
    ):
        if as_json:
            typer.echo(json.dumps(document.to_dict(), ensure_ascii=False))
            continue
        for line in lines(document, number, columns, _paint):
            typer.echo(line)
        typer.echo("")


def export(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new or empty folder.")],
    recipe: RecipeArgument = "quickstart",
    lake: LakeOption = DEFAULT_LAKE,
    set_: SetOption = None,
    format_: Annotated[
        Literal["parquet", "hf", "shar", "lhotse", "webdataset", "textgrid", "ctm", "srt", "vtt"],
        typer.Option("--format", help="parquet: packed sequences of tokens; the others: recordings and their words."),
    ] = "parquet",
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Write until every document was shown so often, in whole windows; once unless given."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Write so many tokens, padding not counted, instead of --epochs.")
    ] = None,
    shard_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of one Parquet file; 134,217,728 (2^27) unless given.")
    ] = None,
    split: Annotated[
        Literal["train", "held_out"] | None,
        typer.Option("--split", help="Part of the corpus; else train of packed sequences, both of recordings."),
    ] = None,
    seed: SeedOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older export in DIR.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the corpus of RECIPE for other programs: packed sequences, or recordings with words, text and units.

    The folder appears when it is complete; `README.md` in it says what is in it and how to load it.
    """
    check_target(out, force=force)
    packing = {"epochs": epochs, "tokens": tokens, "shard_tokens": shard_tokens, "seed": seed}
    given = {name: value for name, value in packing.items() if value is not None}
    if format_ == "parquet":
        meta, lines = _export_packed(out, recipe, lake, set_, split or "train", given, force=force)
    elif given:
        raise SpiritLMError(f"--{next(iter(given)).replace('_', '-')} is for packed sequences, --format parquet")
    else:
        meta, lines = _export_segments(out, recipe, lake, set_, format_, split, force=force)
    note_export(Lake(lake), str(out.absolute()), meta["lineage"].values())
    how = f"delete {out}, and export again when `spiritlm run {recipe} --lake {lake}` has made them"
    refuse_forgotten(Lake(lake), meta["lineage"].values(), how)  # forgotten while it was written
    if sys.stderr.isatty():
        typer.echo("", err=True)
    for line in [json.dumps({"out": str(out), **meta}, ensure_ascii=False)] if as_json else lines:
        typer.echo(line)


def _export_packed(
    out: Path, recipe: str, lake: str, set_: list[str] | None, split: str, given: dict[str, int], *, force: bool
) -> tuple[dict[str, Any], list[str]]:
    """Write packed sequences; returns what `corpus.json` says, and lines for people."""
    if "epochs" in given and "tokens" in given:
        raise SpiritLMError("--epochs and --tokens exclude each other: give one of them")
    loaded, corpus = _open(recipe, lake, set_)
    limits: dict[str, Any] = {"seed": loaded.lm.seed, "epochs": None if "tokens" in given else 1, **given}
    meta = write(corpus, out, split=split, force=force, progress=_progress, **limits)
    streams = ", ".join(f"{n:,} {name}" for name, n in meta["tokens_by_stream"].items())
    return meta, [
        f"{out}: {meta['sequences']:,} sequences of {meta['context_length']} in {meta['files']} files",
        f"{meta['tokens']:,} tokens ({streams}), {100 * meta['padding']:.1f} % padding",
    ]


def _export_segments(
    out: Path, recipe: str, lake: str, set_: list[str] | None, kind: str, split: str | None, *, force: bool
) -> tuple[dict[str, Any], list[str]]:
    """Write recordings with their words; returns what `corpus.json` says, and lines for people."""
    from flows.graphs.speech_lm import speech_lm

    loaded = _load(recipe, lake, set_ or [])
    segments = Segments.open(Lake(lake), loaded.name, recipe, speech_lm(loaded).nodes)
    meta = export_segments(segments, out, kind, split=split, force=force, progress=_segment_progress)
    figures = [
        f"{out}: {of['segments']:,} segments of {name}, {of['hours']:.2f} hours, {of['words']:,} words"
        for name, of in meta["splits"].items()
    ]
    return meta, [*figures, *(f"left out, {count} times: {reason}" for reason, count in meta["left_out"].items())]


def _open(recipe: str, lake: str, overrides: list[str] | None) -> tuple[Recipe, FinishedCorpus]:
    loaded = _load(recipe, lake, overrides or [])
    return loaded, FinishedCorpus.open(
        Lake(lake), loaded.name, loaded.token_settings, texts=bool(loaded.texts), asked=recipe
    )


def _load(recipe: str, lake: str, overrides: list[str]) -> Recipe:
    """A recipe. Raises SpiritLMError: one of `overrides` changes what is in the tables, which are made without it."""
    from flows.recipes import find_recipe

    loaded = find_recipe(recipe, overrides)
    last = last_settings(Lake(lake), loaded.name, type(loaded)) if overrides else None
    for override in overrides:
        section = override.partition("=")[0].strip().partition(".")[0]
        if section not in _READ and (last is None or _written(last, section) != _written(loaded, section)):
            raise SpiritLMError(
                f"--set {override}: the corpus of {loaded.name!r} in {lake} was not made with that; "
                f"`spiritlm run {recipe} --set {shlex.quote(override)} --until corpus --lake {lake}` makes it anew"
            )
    return loaded


def _written(recipe: Recipe, section: str) -> str:
    """A part of a recipe; whether something optional was there is not part of it."""
    return recipe.model_dump_json(include={section}).replace('"absent"', "true")


def _progress(counts: Counts) -> None:
    if sys.stderr.isatty():
        typer.echo(f"\r{counts.sequences:,} sequences, {counts.tokens:,} tokens", err=True, nl=False)


def _segment_progress(number: int) -> None:
    if sys.stderr.isatty() and number % 100 == 0:
        typer.echo(f"\r{number:,} segments", err=True, nl=False)


def _paint(text: str, kind: str) -> str:
    """Colours; `typer.echo` takes them away where standard output is no terminal."""
    return text if "NO_COLOR" in os.environ else typer.style(text, **_STYLES[kind])
