"""The shared parity data: seeded checkpoints in the released layout, and what the released code answers on them.

They lie beside the repository. Where they do not, tests that need them are skipped, and :mod:`tests.parity` still
guards the same answers; where they do, a test that is skipped has failed.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path

import pytest

PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity"
GOLDENS = {"tiny": "11", "alt": "11_alt"}
LLAMA = PARITY / "llama2_tokenizer.model"
Roots = Callable[[str], Path]


def golden(preset: str, name: str) -> dict:
    """The answers in one file; skips where there are none."""
    need_parity()
    return json.loads((PARITY / "goldens" / GOLDENS[preset] / f"{name}.json").read_text())


def need_parity() -> None:
    """Skip the test where the data are not at hand."""
    if not PARITY.is_dir():
        pytest.skip(f"{PARITY} is not there")


def write_checkpoints(root: Path, preset: str, *options: str) -> dict[str, str]:
    """Write seeded checkpoints below `root`; the digests of their parts."""
    need_parity()
    script = PARITY / "make_checkpoints.py"
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["--seed", "11", "--preset", preset, "--llama-tokenizer", str(LLAMA), *options]
        patch.setattr(sys, "argv", [script.name, str(root), *arguments])
        runpy.run_path(str(script), run_name="__main__")
    parts: dict[str, str] = json.loads((root / "manifest.json").read_text())["parts"]
    return parts


def _roots(factory: pytest.TempPathFactory, *options: str) -> Roots:
    """Where the checkpoints of a preset lie, whose tensors are those that the answers were made with."""

    @cache
    def make(preset: str) -> Path:
        root = factory.mktemp(preset)
        made, expected = write_checkpoints(root, preset, *options), golden(preset, "meta")["checkpoint"]["parts"]
        assert made == {part: expected[part] for part in made}
        return root

    return make


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """Root folder of the seeded speech tokenizers of a preset, without a vocoder."""
    return _roots(tmp_path_factory, "--parts", "hubert,f0,style")


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """Root folder of the seeded language models of a preset."""
    return _roots(tmp_path_factory, "--parts", "lm")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """Root folder of all seeded checkpoints of a preset, vocoders and language models included."""
    return _roots(tmp_path_factory)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test of parity has failed where its data are at hand."""
    report = yield
    if report.skipped and PARITY.is_dir() and _is_of_parity(item):
        report.outcome, report.longrepr = "failed", f"skipped, though {PARITY} is there: {report.longrepr}"
    return report


def _is_of_parity(item: pytest.Item) -> bool:
    return bool({"official", "released", "whole", "goldens"} & set(getattr(item, "fixturenames", ())))
