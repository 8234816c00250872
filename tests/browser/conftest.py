"""Chromium without a window, driven by Playwright; infra/browser.sh installs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.serving import Served

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "browser"


def tool(*names: str) -> str:
    """Where a program is; in CI it must be there."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        message = f"{names[0]} is not installed: run infra/browser.sh"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="session")
def modules() -> Path:
    """The folder of Playwright and OpenAI's client, installed by npm where these versions are not there yet."""
    wanted = json.loads((HERE / "package.json").read_text())["devDependencies"]
    installed = {name: BUILD / "node_modules" / name / "package.json" for name in wanted}
    if {name: json.loads(file.read_text())["version"] for name, file in installed.items() if file.exists()} != wanted:
        BUILD.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", ".npmrc"):
            shutil.copy(HERE / name, BUILD / name)
        subprocess.run([tool("npm"), "install", "--no-audit", "--no-fund"], cwd=BUILD, check=True, timeout=300)
    return BUILD


@pytest.fixture(scope="session")
def driven(modules: Path) -> Callable[..., dict]:
    """Runs ``NAME.mjs`` on a server; returns what the script saw. Its pictures lie in build/browser/shots/NAME."""

    def run(name: str, server: Served, **options: str) -> dict:
        shots = BUILD / "shots" / name
        shutil.rmtree(shots, ignore_errors=True)
        shots.mkdir(parents=True)
        chromium = tool("chromium", "chromium-browser", "google-chrome")
        given = {**options, "url": server.url, "shots": str(shots), "modules": str(modules), "chromium": chromium}
        command = [tool("node"), str(HERE / f"{name}.mjs"), json.dumps(given)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        found: dict = json.loads(done.stdout.splitlines()[-1])
        assert "failed" not in found, f"{found['failed']}\n{server.lines}\n{found}"
        return found

    return run
