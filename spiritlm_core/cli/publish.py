"""``spiritlm publish``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def publish(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", exists=True, file_okay=False, help="A published model, or an exported corpus."),
    ],
    to: Annotated[
        str, typer.Option("--to", metavar="hf://ORG/NAME", help="The repository, which is made if it is not there.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Let nobody else see it.")] = False,
) -> None:
    """Put DIR on a Hugging Face hub, in one commit, and print its address; HF_TOKEN says who you are."""
    from spiritlm_core.publish.hub import publish as put

    typer.echo(put(folder, to, private=private))
