"""How the command line ends: errors in a sentence, the traceback in a file, Ctrl-C answered at once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spiritlm_core.errors import LakeError, SpiritLMError
from spiritlm_core.failures import UnexpectedError, explained, one_line
from tests.support.watching import PATIENCE

FROM = "from spiritlm_core.cli import main; main()"
START = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {FROM}"
"""Shells start background jobs with Ctrl-C ignored, and the tests may be one."""


def start(*arguments: object, before: str = "", **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", f"{before}\n{START}", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, **environment}, **pipes, cwd=Path(__file__).parents[2])


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=PATIENCE)
    return process.returncode, err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(5, "Input/output error", "/data/x"), "Input/output error: /data/x"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (ValueError("two\nlines"), "ValueError: two lines"),
        (RecursionError(), "RecursionError"),
    ],
)
def test_an_unexpected_error_is_one_line_and_a_file_with_the_traceback(error, line, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    try:
        raise error
    except type(error) as raised:
        found = explained(raised)
    assert isinstance(found, UnexpectedError)
    assert str(found).startswith(f"{line} (unexpected; the traceback is in {tmp_path}/spiritlm/error-")
    assert "\n" not in str(found)
    (written,) = (tmp_path / "spiritlm").iterdir()
    assert "Traceback (most recent call last)" in written.read_text()
    assert type(error).__name__ in written.read_text()


def test_an_error_that_says_what_to_do_is_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    error = LakeError("lake x is gone; give another")
    assert explained(error) is error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_not_unexpected(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    said = str(explained(OSError(28, "No space left on device", "/data/x")))
    assert said == "No space left on device: /data/x: free some space, and start it again"
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_the_sentence_is_still_there(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert str(explained(KeyError("x"))) == (
        "KeyError: 'x' (unexpected; its traceback could be written nowhere; --debug shows it)"
    )


def test_a_long_message_is_cut():
    assert len(one_line(SpiritLMError("x" * 5000))) < 400


@pytest.mark.parametrize("arguments", [["recipes"], ["--debug", "recipes"], ["recipes", "--debug"]], ids=" ".join)
def test_the_command_line_shows_one_line_and_with_debug_everything(arguments, tmp_path):
    broken = 'say(); raise OSError(5, "Input/output error", "/data/x")'
    status, err = ended(start(*arguments, before=BUSY.format(work=broken), XDG_STATE_HOME=str(tmp_path)))
    shown = err.splitlines()[1:]
    assert status == 1
    assert re.match(r"spiritlm: Input/output error: /data/x \(unexpected; .*/error-.*\.log\)$", shown[-1])
    assert ("Traceback (most recent call last):" in shown) == ("--debug" in arguments)
    assert (len(shown) > 1) == ("--debug" in arguments)


@pytest.mark.parametrize("home", ["/proc/nothing/here", "/dev/null"])
def test_a_prefect_home_that_cannot_be_written_is_said(home, tmp_path):
    status, err = ended(start("run", "quickstart", "--lake", tmp_path, PREFECT_HOME=home, PREFECT_API_URL=""))
    assert status == 1
    assert "PREFECT_HOME cannot be used" in err
    assert "Traceback" not in err


# --- Ctrl-C ---------------------------------------------------------------------------------------------------

BUSY = """
import flows.cli.recipes, ctypes, sys, time
def say(): print("busy", file=sys.stderr, flush=True)
def busy(*args, **kwargs):
    {work}
flows.cli.recipes._list = busy
"""
IN_A_LIBRARY = "say(); ctypes.CDLL(None).poll(None, 0, 60_000); ctypes.CDLL(None).poll(None, 0, 60_000)"
STUBBORN = """
    for first in [True, *[False] * 99]:
        try:
            if first: say()
            time.sleep(60)
        except KeyboardInterrupt: pass"""
ANOTHER_ERROR = """
    try: say(); time.sleep(60)
    except KeyboardInterrupt: raise RuntimeError("the run crashed")"""


def busy(work: str) -> subprocess.Popen[str]:
    process = start("recipes", before=BUSY.format(work=work))
    assert process.stderr is not None
    assert process.stderr.readline() == "busy\n"
    return process


@pytest.mark.parametrize(
    "work",
    ["say(); time.sleep(60)", IN_A_LIBRARY, STUBBORN, ANOTHER_ERROR],
    ids=["python", "library", "stubborn", "error"],
)
def test_ctrl_c_is_answered_and_ends_it_whatever_it_is_doing(work):
    process = busy(work)
    process.send_signal(signal.SIGINT)
    status, err = ended(process)
    assert status == 130
    assert err.strip().splitlines() == [
        "spiritlm: stopping … finished work is kept, run again to go on (Ctrl-C again ends it now)"
    ]


def test_a_second_ctrl_c_ends_it_now():
    process = busy(f"import spiritlm_core.cli.app; spiritlm_core.cli.app.GRACE_SECONDS = 600{STUBBORN}")
    process.send_signal(signal.SIGINT)
    assert "stopping" in process.stderr.readline() + process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "")


def test_a_process_that_was_told_to_ignore_ctrl_c_goes_on():
    quick = "import flows.cli.recipes, signal\nsignal.signal = lambda *_: None\n"
    command = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{quick}"
    process = start("recipes", before=f"{command}\nimport os; os.kill(os.getpid(), signal.SIGINT)")
    assert ended(process)[0] == 0
