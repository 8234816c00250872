"""``spiritlm explore``: a page over a lake."""

from typing import Annotated

import typer

from spiritlm_core.cli.options import DEFAULT_LAKE, LakeArgument
from spiritlm_core.explore.catalogue import Catalogue
from spiritlm_core.lake.lake import Lake
from spiritlm_core.serve.errors import ServeConfig


def explore(
    lake: LakeArgument = DEFAULT_LAKE,
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 lets other machines in, without a password.")] = (
        "127.0.0.1"
    ),
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Name browsers call this page by, e.g. a proxy's. May be repeated."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 7861,
) -> None:
    """Open a page on this machine to look at and listen to what LAKE holds, until Ctrl-C."""
    from spiritlm_core.explore.server import Explorer

    config = ServeConfig.of_options(host=host, allow_host=tuple(allow_host or ()), port=port)
    opened = Lake(lake)
    with Explorer(opened, config) as server:
        Catalogue(opened).listed()  # says so if there is nothing to look at
        typer.echo(f"{server.url}  (Ctrl-C ends it)")
        server.run()
    typer.echo("closed", err=True)
