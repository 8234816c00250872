"""The ``spiritlm`` command: its subcommands, how errors look, and how Ctrl-C is answered."""

import atexit
import contextlib
import io
import os
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import Annotated, NoReturn

import typer

from spiritlm_core.cli.commands import Root
from spiritlm_core.failures import explained

app = typer.Typer(
    name="spiritlm",
    cls=Root,
    help="Build, train, evaluate and use speech-text language models in the manner of Spirit LM.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
EXIT_SECONDS = 4.0  # for what libraries do when Python ends: Prefect would knock for minutes at a server that is gone
QUIET = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL", "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL"}
"""Errors are said once, by us; Prefect's UI has all."""


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
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere on the line.")
    ] = False,
) -> None:
    del version, debug  # run has seen it


def run() -> NoReturn:
    """Run the command line, then end this process without taking every library to pieces: torch alone takes seconds."""
    status = 1

    def leave() -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more, or it is closed
            sys.stdout.flush()
        os._exit(status)

    atexit.register(leave)  # what is registered first is done last
    status = command()
    leave_within(EXIT_SECONDS, status, main_may_work=True)
    sys.exit(status)


def command() -> int:
    """Run the command line; returns its exit status. An error is one message on standard error and 1; Ctrl-C is 130."""
    os.environ.update({**QUIET, **os.environ})
    _open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    answer_ctrl_c()
    status = _status(debug=_take_debug(sys.argv))
    sys.stdout.flush()
    # Some commands end well on Ctrl-C, and libraries make errors of their own of it.
    return STATUS if asked() else status


def _open_standard_streams() -> None:
    """Where one is closed, as after ``>&-``, what is said goes nowhere: not into the next file that is opened."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdout, sys.stderr = sys.stdout or open(1, "w"), sys.stderr or open(2, "w")  # noqa: SIM115


def _status(*, debug: bool) -> int:
    """Run the command; returns its exit status."""
    try:
        app(prog_name="spiritlm")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return STATUS
    except Exception as error:  # noqa: BLE001 - whatever it is, people get a sentence
        if debug:
            traceback.print_exception(error)
        if not asked():
            typer.echo(f"spiritlm: {explained(error)}", err=True)
        return 1
    return 0


def _take_debug(arguments: list[str]) -> bool:
    """Take ``--debug`` out of the arguments, wherever it stands before a ``--``."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument != "--debug"]
    arguments[:end] = kept
    return len(kept) < end


GRACE_SECONDS = 2.5
STATUS = 128 + signal.SIGINT  # the exit status of an interrupted command, as shells have it
_LINE = "\nspiritlm: stopping … finished work is kept, run again to go on (Ctrl-C again ends it now)\n"
_first = threading.Lock()  # taken by the first Ctrl-C, and never given back


def asked() -> bool:
    """Whether somebody has pressed Ctrl-C."""
    return _first.locked()


def answer_ctrl_c() -> None:
    """Listen for SIGINT in a thread of its own: the main thread cannot answer while it is inside a library.

    Everything in a lake is written whole or not at all, so that ending at any moment loses nothing. A command with a
    handler of its own (a server that lets requests finish) is left alone, and so is a process that ignores the signal.
    """
    if signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, signal.SIG_DFL):
        return
    ends, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, _interrupt)
    threading.Thread(target=_listen, args=(ends,), name="ctrl-c", daemon=True).start()


def _interrupt(number: int, frame: FrameType | None) -> None:
    _answer()
    signal.default_int_handler(number, frame)


def _answer() -> None:
    """Say that we stop, unless that has been said."""
    if _first.acquire(blocking=False):
        os.write(2, _LINE.encode())


def _listen(ends: int) -> None:
    count = 0
    while number := os.read(ends, 1):
        if number[0] != signal.SIGINT or signal.getsignal(signal.SIGINT) is not _interrupt:
            continue
        count += 1
        if count > 1:
            os._exit(STATUS)
        _answer()
        leave_within(GRACE_SECONDS, STATUS)


def leave_within(seconds: float, status: int, *, main_may_work: bool = False) -> None:
    """End this process with `status` after so long, unless it has ended by then, or its main thread may still work."""

    def leave() -> None:
        if not (main_may_work and threading.main_thread().is_alive()):
            os._exit(status)

    last = threading.Timer(seconds, leave)
    last.daemon = True
    last.start()
