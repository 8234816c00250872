"""The ``spiritlm`` command. Heavy imports happen inside the commands, so that ``--help`` is quick."""

from spiritlm_core.cli.main import main

__all__ = ["main"]
