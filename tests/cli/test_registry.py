"""The registry of commands: each line leads to a command, none is loaded before it is needed, absent ones say why."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
from typer.testing import CliRunner

from spiritlm_core.cli import commands
from spiritlm_core.cli.app import app
from spiritlm_core.cli.commands import COMMANDS, GROUPS, Command

WITHOUT_CHECKOUT = """
import sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("flows", "tasks"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])
sys.meta_path.insert(0, Absent())
from spiritlm_core.cli import main
main()
"""


WATCHED = """
import atexit, sys
from spiritlm_core.cli import main
from spiritlm_core.cli.commands import COMMANDS
modules = {line.module for line in COMMANDS} | {"flows"}
atexit.register(lambda: print("loaded:", *sorted(modules & set(sys.modules)), file=sys.stderr))
main()
"""


def ran(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What Python did with `code`."""
    return subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)


def without_checkout(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``spiritlm`` where only the core is installed."""
    return ran(WITHOUT_CHECKOUT, *arguments)


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: line.name)
def test_every_line_of_the_registry_is_a_command_with_help(line: Command) -> None:
    shown = CliRunner().invoke(app, [*line.name.split(" "), "--help"])
    assert shown.exit_code == 0
    function = getattr(import_module(line.module), line.name.split(" ")[-1].replace("-", "_"))
    assert function.__doc__
    assert len(line.name.split(" ")) == 1 or line.name.split(" ")[0] in GROUPS


def test_help_lists_every_command_and_every_group() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert [name for name in {line.name.split(" ")[0] for line in COMMANDS} if f"│ {name} " not in shown] == []


def test_a_command_loads_no_other() -> None:
    done = ran(WATCHED, "lake", "du", "-h")
    assert (done.returncode, done.stderr) == (0, "loaded: spiritlm_core.cli.lake\n")


def test_a_name_that_is_almost_a_command_is_corrected() -> None:
    for wrong, right in ((["transcrib"], "transcribe"), (["lake", "verfy"], "verify")):
        assert f"Did you mean '{right}'" in " ".join(CliRunner().invoke(app, wrong).output.split())


def test_a_command_of_ones_own_is_one_file_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Command("count-words", "tests.examples.command", commands.MODELS)
    monkeypatch.setattr(commands, "COMMANDS", (*COMMANDS, mine))
    assert CliRunner().invoke(app, ["count-words", "press one now"]).stdout == "3\n"
    assert "Print how many words TEXT has." in CliRunner().invoke(app, ["--help"]).stdout


def test_without_a_checkout_a_command_of_the_pipeline_says_what_it_needs() -> None:
    shown = without_checkout("--help")
    assert (shown.returncode, shown.stdout.count("Needs a checkout of the repository.") >= 4) == (0, True)
    done = without_checkout("run", "quickstart", "--set", "lm.steps=1")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "spiritlm run needs a checkout of the repository" in done.stderr
    assert "spiritlm evaluate units needs a checkout" in without_checkout("evaluate", "units").stderr
    assert without_checkout("lake", "du", "--help").returncode == 0


def test_the_missing_module_of_a_library_is_not_taken_for_a_missing_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Command("count-words", "tests.examples.absent", commands.MODELS)
    monkeypatch.setattr(commands, "COMMANDS", (broken,))
    with pytest.raises(ModuleNotFoundError, match="tests.examples.absent"):
        CliRunner().invoke(app, ["count-words"], catch_exceptions=False)
