"""``spiritlm count-words``."""

from typing import Annotated

import typer


def count_words(text: Annotated[str, typer.Argument(metavar="TEXT", help="What to count.")]) -> None:
    """Print how many words TEXT has."""
    typer.echo(len(text.split()))
