"""``spiritlm serve``: a web page and an HTTP interface for models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from spiritlm_core.cli import options
from spiritlm_core.lm.model.folder import locate
from spiritlm_core.serve.errors import ServeConfig


def serve(
    model: Annotated[
        list[str],
        typer.Argument(metavar="MODEL…", help="Folders of models, ours or released; the first is the default."),
    ],
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 lets other machines in: set a token.")] = (
        "127.0.0.1"
    ),
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Name clients call this server by, e.g. a proxy's. May be repeated."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar="SPIRITLM_TOKEN",
            help="Requests must send it as a bearer token; the page asks for it as a password. Better set the "
            "variable: a command line can be seen by others.",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the page and the interface; 0 takes a free one.")
    ] = 7860,
    max_upload_mb: Annotated[float, typer.Option(min=0.01, help="Largest request in megabytes.")] = 25,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, help="Most seconds of the recordings of a request together.")
    ] = 60,
    queue: Annotated[
        int, typer.Option(min=1, help="Most requests at once, the one computed and those that wait.")
    ] = 16,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens that may be asked for.")] = 512,
    token_limit: Annotated[
        int | None, typer.Option(min=1, help="Longest prompt in tokens; else what the context of the model holds.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until a request is given up.")] = 120,
    aligner: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="An aligner, fitted here or a Wav2Vec2ForCTC, for times of words in transcripts."
        ),
    ] = None,
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="Whether there is a web page beside the HTTP interface.")
    ] = True,
    loading: options.Loading = options.Loading(),
) -> None:
    """Serve MODEL on this machine until Ctrl-C: a page at /, an HTTP interface at /v1, its description at /docs."""
    config = ServeConfig.of_options(
        host=host,
        allow_host=tuple(allow_host or ()),
        token=SecretStr(token) if token else None,
        port=port,
        max_upload_mb=max_upload_mb,
        max_seconds=max_seconds,
        queue=queue,
        max_new_tokens=max_new_tokens,
        token_limit=token_limit,
        timeout=timeout,
        aligner=aligner,
        page=page,
    )
    for folder in model:
        locate(folder, loading.variant)
    from spiritlm_core.serve.server import Server

    with Server(config) as server:
        typer.echo(f"loading {', '.join(model)}", err=True)
        server.load(model, **asdict(loading))
        typer.echo(f"{server.url}  (page, /docs and /v1; Ctrl-C ends it)")
        server.run()
    typer.echo("closed", err=True)
