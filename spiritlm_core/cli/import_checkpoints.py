"""``spiritlm import-checkpoints``: the released files, checked and converted once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from spiritlm_core.cli import options


def import_checkpoints(
    root: Annotated[
        Path,
        typer.Argument(metavar="ROOT", help="Folder of the released checkpoints; holds speech_tokenizer/hubert_25hz."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; must be new or empty.")],
    variant: options.VariantOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at OUT.")] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Convert released speech tokenizer files to safetensors, checking every tensor; no code in them is run.

    SpeechTokenizer.from_pretrained and `spiritlm tokenize --model` load OUT. The same files are not converted twice.
    """
    from spiritlm_core.speech.released.convert import import_checkpoints as convert

    done = convert(root, out, variant, force=force)
    if as_json:
        fields = {"folder": str(done.folder), "variant": done.variant, "digest": done.digest, "fresh": done.fresh}
        typer.echo(json.dumps(fields))
    else:
        typer.echo(f"{done.folder}: {done.variant}, {'written' if done.fresh else 'up to date'}")
