"""How ``spiritlm`` starts: its version, completion in the shell, and Ctrl-C before it is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spiritlm_core.cli.app import app
from spiritlm_core.cli.files import check_any, write_wav
from spiritlm_core.errors import SpiritLMError
from tests.support.watching import PATIENCE

START = "from spiritlm_core.cli import main; main()"

SLOW_IMPORT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from importlib.abc import MetaPathFinder
class Slow(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "spiritlm_core.cli.app":
            os.kill(os.getpid(), signal.SIGINT)
            import time; time.sleep(60)
sys.meta_path.insert(0, Slow())
from spiritlm_core.cli import main
main()
"""


def ran(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What Python did with `code`."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **environment},
    )


def test_ctrl_c_while_modules_load_ends_without_a_traceback() -> None:
    done = ran(SLOW_IMPORT, "recipes")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_a_command_inside_another_program_leaves_that_one_its_own_end() -> None:
    code = "import sys; from spiritlm_core.cli.app import command; command(); sys.exit(7)"
    done = ran(code, "generate", "gone")
    assert done.returncode == 7
    assert "gone" in done.stderr


def test_the_version_is_that_of_the_package() -> None:
    done = ran(START, "--version")
    assert (done.returncode, done.stdout.strip()) == (0, version("spiritlm-pipeline"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_asks_the_command_itself(shell: str) -> None:
    done = ran(START, "--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0
    assert f"_SPIRITLM_COMPLETE=complete_{shell}" in done.stdout


def test_a_folder_in_the_place_of_a_recording_is_told_apart_from_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpiritLMError, match=f"^{tmp_path}: it is a folder: name the files in it\ngone: there is no"):
        check_any([str(tmp_path), "gone"])


def test_a_waveform_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(SpiritLMError, match="cannot be written: .*No space left"):
        write_wav(tmp_path / "a.wav", np.zeros(1000, np.float32))
    assert list(tmp_path.iterdir()) == []


def test_completion_knows_commands_and_those_below_a_word() -> None:
    typed = {"spiritlm tr": ("1", "transcribe"), "spiritlm lake v": ("2", "verify")}
    for words, (place, wanted) in typed.items():
        done = ran(START, _SPIRITLM_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=place)
        assert done.stdout.split() == [wanted]


def test_a_folder_that_is_not_there_is_told_apart_from_a_command() -> None:
    done = ran(START, "evaluate", "nosuchfolder")
    assert done.returncode == 1
    assert "no folder nosuchfolder" in done.stderr
    assert "units" in done.stderr
    assert "Did you mean 'units'" in " ".join(CliRunner().invoke(app, ["evaluate", "unts"]).output.split())
