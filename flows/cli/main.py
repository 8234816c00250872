"""The ``spiritlm`` command: its subcommands, and how errors look."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from spiritlm_core.errors import SpiritLMError

app = typer.Typer(
    name="spiritlm",
    help="Build, train, evaluate and use speech-text language models in the manner of Spirit LM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # errors are said once, by us; the UI has all
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYANNOTE_METRICS_ENABLED": "0",
}
"""Telemetry is off and logs are short, unless the user has said otherwise."""


def _version(show: bool) -> None:
    if show:
        from importlib.metadata import version

        typer.echo(version("spiritlm-pipeline"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    del version


def _register() -> None:
    from flows.cli import (
        corpus,
        evaluate,
        fewshot,
        finetune,
        fit,
        generate,
        import_checkpoints,
        lake,
        recipes,
        resynthesize,
        run,
        say,
        serve,
        status,
        tokenize,
        transcribe,
        ui,
    )

    run.register(app)
    recipes.register(app)
    status.register(app)
    ui.register(app)
    import_checkpoints.register(app)
    tokenize.register(app)
    resynthesize.register(app)
    generate.register(app)
    transcribe.register(app)
    say.register(app)
    serve.register(app)
    finetune.register(app)
    fewshot.register(app)
    app.add_typer(corpus.app, name="corpus")
    app.add_typer(fit.app, name="fit")
    app.add_typer(evaluate.app, name="evaluate")
    app.add_typer(lake.app, name="lake")


def main() -> None:
    """Entry point: an error that the user can act on is one message on standard error and exit status 1."""
    os.environ.update({key: os.environ.get(key, value) for key, value in QUIET.items()})
    _register()
    try:
        app()
    except SpiritLMError as error:
        typer.echo(f"spiritlm: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("spiritlm: interrupted; finished work is kept, run again to go on", err=True)
        sys.exit(130)
