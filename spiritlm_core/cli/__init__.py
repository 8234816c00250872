"""The ``spiritlm`` command. Heavy imports happen inside the commands, so that ``--help`` is quick."""

import signal


def main() -> None:
    """Entry point: run the command line. A Ctrl-C while its modules are still loading ends it without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from spiritlm_core.cli.app import run

    run()
