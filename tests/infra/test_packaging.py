"""What is installed: every import is declared, what is declared is used or says why, the wheel is the core alone."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

import numpy as np
import pytest

from spiritlm_core import failures
from spiritlm_core.audio.codec import encode_wav

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {
    "av": "av", "huggingface-hub": "huggingface_hub", "piper-tts": "piper", "pyyaml": "yaml", "scikit-learn": "sklearn",
}  # fmt: skip
"""Distributions whose module is not called like them."""
NOT_IMPORTED = {
    "accelerate": "transformers reads .gguf files with it",
    "onnx": "torch writes .onnx files with it",
    "python-multipart": "starlette reads forms with it",
    "setuptools": "pyworld imports pkg_resources",
    "sqlalchemy": "prefect's scheduler fails with newer ones",
    "websockets": "uvicorn serves WebSockets with it",
    "tensorboard": "torch.utils.tensorboard writes with it",
}
UNWANTED = {
    "prefect",
    "ray",
    "whisperx",
    "gradio",
    "fastapi",
    "lhotse",
    "scikit-learn",
    "matplotlib",
    "espeakng-loader",
}


def names(requirements: list[str]) -> set[str]:
    """Distributions of requirements, without the package's own extras."""
    distributions = {re.match(r"[\w.-]+", line)[0].lower() for line in requirements}  # type: ignore[index]
    return distributions - {failures.PACKAGE}


def imported(package: str) -> Iterator[str]:
    """Top names of all that the modules of `package` import, wherever the statement stands."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.partition(".")[0]


USED = {name for package in ("spiritlm_core", "tasks", "flows") for name in imported(package)}
USED -= {*sys.stdlib_module_names, "spiritlm_core", "tasks", "flows"}
TOOLS = ("dev", "docs")
EXTRAS = {name: names(lines) for name, lines in PROJECT["optional-dependencies"].items() if name not in TOOLS}
DECLARED = names(PROJECT["dependencies"]).union(*EXTRAS.values())


def module_of(distribution: str) -> str:
    return MODULES.get(distribution, distribution.replace("-", "_"))


def test_what_is_imported_is_declared() -> None:
    assert USED - {module_of(name) for name in DECLARED} == set()


def test_what_is_declared_is_imported_or_says_why_not() -> None:
    assert {name for name in DECLARED if module_of(name) not in USED} == set(NOT_IMPORTED)


@pytest.mark.parametrize(("library", "extra"), [("espeakng-loader", "speak"), ("piper-tts", "piper")])
def test_libraries_under_the_gpl_are_in_extras_of_their_own(library: str, extra: str) -> None:
    assert [name for name, libraries in EXTRAS.items() if library in libraries] == [extra]
    assert EXTRAS[extra] == {library}
    assert library not in names(PROJECT["dependencies"])


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["torch>=2.8", 'fastapi>=0.115; extra == "serve"', "scikit-learn>=1.5; (extra == 'evaluate')"]
    monkeypatch.setattr(failures, "requires", lambda _: lines)
    for module, advice in (
        ("fastapi.responses", "fastapi is not installed: pip install 'spiritlm-pipeline[serve]' brings it"),
        ("sklearn", "scikit-learn is not installed: pip install 'spiritlm-pipeline[evaluate]' brings it"),
    ):
        said = failures.explained(ModuleNotFoundError(f"No module named {module!r}", name=module))
        assert str(said) == advice
    assert failures.missing("torch") is None
    assert failures.missing(None) is None
    failures.require("json")
    monkeypatch.setattr(failures, "requires", lambda _: ["gone>=1; extra == 'speak'"])
    with pytest.raises(failures.MissingExtraError, match=r"\[speak\]"):
        failures.require("gone")


def run(*command: object, cwd: Path, **settings: str) -> str:
    """Standard output of a command that must succeed."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it may lead to a checkout
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=cwd, env={**inherited, **settings}, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built away from it."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "spiritlm_core", "tasks", "flows"):
        (tree / name).symlink_to(ROOT / name)
    run(sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--out-dir", folder, tree, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_the_core_alone_with_all_its_files(wheel: Path) -> None:
    files = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in files if ".dist-info/" not in name} == {"spiritlm_core"}
    data = {str(path.relative_to(ROOT)) for path in (ROOT / "spiritlm_core").rglob("templates/*")}
    assert {*data, "spiritlm_core/py.typed"} <= set(files)


@pytest.mark.slow
def test_a_model_is_used_where_only_the_wheel_is_installed(wheel: Path, speaking: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, environment, cwd=tmp_path)
    python, spiritlm = environment / "bin" / "python", environment / "bin" / "spiritlm"
    pins = ("--constraint", ROOT / "requirements.lock")
    run(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python, *pins, wheel, cwd=tmp_path)
    listed = json.loads(
        run(sys.executable, "-m", "uv", "pip", "list", "--python", python, "--format", "json", cwd=tmp_path)
    )
    installed = {package["name"] for package in listed}
    print(f"{len(installed)} packages, {size(environment) / 1e9:.1f} GB: {' '.join(sorted(installed))}")  # noqa: T201
    assert installed & UNWANTED == set()

    clip = tmp_path / "clip.wav"
    clip.write_bytes(encode_wav(0.3 * np.sin(np.arange(32_000) / 12).astype(np.float32)))
    home = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    said = json.loads(run(spiritlm, "transcribe", speaking, clip, "--json", cwd=tmp_path, **home))
    assert isinstance(said["text"], str)
    assert run(spiritlm, "generate", speaking, clip, "--output", "speech", "--max-new-tokens", 9, cwd=tmp_path, **home)
    assert "\t[" in run(spiritlm, "tokenize", "--model", speaking, clip, cwd=tmp_path, **home)
    run(
        spiritlm,
        "resynthesize",
        "--model",
        speaking,
        "--out",
        tmp_path,
        clip.rename(tmp_path / "it.flac"),
        cwd=tmp_path,
    )
    assert (tmp_path / "it.wav").stat().st_size > 44
    for command, advice in (("run", "needs a checkout"), ("serve", "spiritlm-pipeline[serve]")):
        done = subprocess.run([spiritlm, command, speaking], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert (done.returncode, advice in done.stderr, done.stderr.count("\n")) == (1, True, 1)


def size(folder: Path) -> int:
    """Bytes below `folder`."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


PAGE = dict(re.findall(r"^\| `([\w-]+)` \| ([^|]+) \|", (ROOT / "docs/licences.md").read_text("utf-8"), re.MULTILINE))


def test_every_dependency_is_on_the_page_of_licences() -> None:
    everything = DECLARED.union(*(names(PROJECT["optional-dependencies"][tools]) for tools in TOOLS))
    assert set(PAGE) == everything


def test_the_page_gives_the_licences_that_the_packages_give() -> None:
    installed = set(PAGE) - {"piper-tts"}  # which `all` leaves out
    given = {name: metadata(name)["License-Expression"] for name in installed}
    stated = {name: licence for name, licence in given.items() if licence is not None}
    assert len(stated) > 15, "older metadata has no SPDX expression"
    assert {name: PAGE[name] for name in stated} == stated
