"""Imports keep the contracts in pyproject.toml, and heavy libraries are loaded late."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "torchaudio", "ray", "transformers", "sklearn", "matplotlib", "whisperx", "lhotse", "faster_whisper"}


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"there is no package {package}"
    return found


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported anywhere below `tree`, `importlib.import_module("x")` included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute in this project"
            yield node.lineno, str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            first = node.args[0]
            if isinstance(first, ast.Constant):
                yield node.lineno, str(first.value)


def top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run on import: no function bodies, and not what only a type checker sees."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        blocks = ("body", "orelse", "finalbody", "handlers")
        inner = [child for block in blocks for child in getattr(node, block, [])]
        waiting += [child for child in inner if isinstance(child, ast.stmt)]
        waiting += [child for handler in inner if isinstance(handler, ast.ExceptHandler) for child in handler.body]
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Expr | ast.Assign | ast.AnnAssign):
            yield node


def found_imports(path: Path, names: set[str], *, only_top: bool = False) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = list(top_level(tree)) if only_top else [tree]
    lines = {(line, name) for part in parts for line, name in imports(part) if name.split(".")[0] in names}
    return [f"{path.relative_to(ROOT)}:{line} imports {name}" for line, name in sorted(lines)]


def test_the_contracts_hold():
    """Layers, rooms, no circles: ``lint-imports``, as `make check` runs it."""
    lint = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize("package", ["flows", "tasks"])
def test_heavy_libraries_are_imported_where_they_are_used(package):
    assert [fault for path in modules(package) for fault in found_imports(path, HEAVY, only_top=True)] == []


@pytest.mark.parametrize("name", ["config", "stage"])
def test_configurations_and_stages_load_no_heavy_library(name):
    """The Prefect form needs the configurations, planning needs the stage classes; neither needs torch."""
    paths = [path for path in modules("spiritlm_core") if path.stem == name]
    assert len(paths) > 3
    assert [fault for path in paths for fault in found_imports(path, HEAVY, only_top=True)] == []


def test_the_checks_see_what_they_look_for(tmp_path):
    source = "import os\nclass A:\n    import torch.nn\ndef f():\n    from ray.train import report\n"
    source += (
        "if TYPE_CHECKING:\n    import sklearn\ntry:\n    import lhotse\nexcept ImportError:\n    import matplotlib\n"
    )
    tree = ast.parse(source)
    assert {name for _, name in imports(tree)} == {"os", "torch.nn", "ray.train", "sklearn", "lhotse", "matplotlib"}
    top = {name for part in top_level(tree) for _, name in imports(part)}
    assert top == {"os", "torch.nn", "lhotse", "matplotlib"}
