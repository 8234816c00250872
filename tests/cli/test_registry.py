"""The registry of commands: each line leads to a command, none is loaded before it is needed, absent ones say why."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spiritlm_core.cli import commands
from spiritlm_core.cli.app import app
from spiritlm_core.cli.commands import COMMANDS, GROUPS, Command
from spiritlm_core.errors import LakeError, ModelReferenceError

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
import sys
from spiritlm_core.cli import main
watched = set(sys.argv.pop(1).split())
try:
    main()
finally:
    print("loaded:", *sorted(watched & set(sys.modules)), file=sys.stderr)
"""
COMMAND_MODULES = {line.module for line in COMMANDS}
HEAVY = {"numpy", "pyarrow", "yaml", "rfc8785", "torch", "transformers", "av", "soundfile", "prefect", "ray", "fastapi"}


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
    assert "<bool>" not in shown.stdout, "a flag takes no value"
    function = getattr(import_module(line.module), line.name.split(" ")[-1].replace("-", "_"))
    assert function.__doc__
    assert len(line.name.split(" ")) == 1 or line.name.split(" ")[0] in GROUPS


def test_help_lists_every_command_and_every_group() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert [name for name in {line.name.split(" ")[0] for line in COMMANDS} if f"│ {name} " not in shown] == []


def test_the_folder_of_a_model_is_not_taken_for_a_lake(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for command in (["run", "quickstart"], ["lake", "du"]):
        told = CliRunner().invoke(app, [*command, "--lake", str(tmp_path)]).exception
        assert isinstance(told, LakeError)
        assert "is the folder of a model" in str(told)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_lists_all_of_its_commands(group: str) -> None:
    shown = CliRunner().invoke(app, [group, "--help"]).stdout
    names = [line.name.split(" ")[1] for line in COMMANDS if line.name.startswith(f"{group} ")]
    assert [name for name in names if f"│ {name} " not in shown] == []


@pytest.mark.parametrize(
    "command",
    ["evaluate MODEL --suite x", "fewshot asr MODEL x", "evaluate resynthesis --clips x --model MODEL", "lineage MODEL",
     "generate MODEL x", "transcribe MODEL x.wav", "export gguf MODEL", "export onnx MODEL --out x", "serve MODEL"],
)  # fmt: skip
def test_a_model_may_be_named_by_a_reference_wherever_one_is_taken(command: str, tmp_path: Path) -> None:
    (tmp_path / "x.wav").touch()
    words = command.replace("MODEL", "file:///no/such/model").replace("x.wav", str(tmp_path / "x.wav")).split(" ")
    told = CliRunner().invoke(app, words).exception
    assert isinstance(told, ModelReferenceError)
    assert "file:///no/such/model" in str(told)


def test_a_command_loads_no_other() -> None:
    done = ran(WATCHED, " ".join(COMMAND_MODULES | {"flows"}), "lake", "du", "-h")
    assert (done.returncode, done.stderr) == (0, "loaded: spiritlm_core.cli.lake\n")


@pytest.mark.parametrize("group", [[], *([name] for name in GROUPS)], ids=lambda group: "_".join(["spiritlm", *group]))
def test_a_list_of_commands_loads_none_of_them_and_nothing_heavy(group: list[str]) -> None:
    done = ran(WATCHED, " ".join(COMMAND_MODULES | HEAVY), *group, "--help")
    assert (done.returncode, done.stderr) == (0, "loaded:\n")


def test_help_keeps_no_line_ends_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    for line in COMMANDS:
        shown = CliRunner().invoke(app, [*line.name.split(" "), "--help"]).stdout
        about = shown.partition("╭")[0].strip().splitlines()[1:]
        assert [text for text in about if text.strip() and not text.rstrip().endswith((".", "else."))] == []


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
