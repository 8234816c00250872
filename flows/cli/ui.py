"""``spiritlm ui``: the Prefect UI of the embedded server."""

from __future__ import annotations

import time
from typing import Annotated

import typer


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
