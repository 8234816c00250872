"""What holds for the tests themselves."""

from __future__ import annotations

import re
from pathlib import Path

ANOTHER = re.compile(r"^\s*(?:from|import) tests\.(?:\w+\.)*(?:test_\w+|conftest)\b.*$", re.MULTILINE)
TESTS = Path(__file__).parent


def test_no_test_imports_another() -> None:
    """What they share lies in a module of its own, in their folder or in tests/support; fixtures in a conftest.py."""
    assert ANOTHER.findall("from tests.lm.test_train import run\nimport tests.conftest")
    wrong = {str(path.relative_to(TESTS)): ANOTHER.findall(path.read_text("utf-8")) for path in TESTS.rglob("*.py")}
    assert {path: lines for path, lines in wrong.items() if lines and path != "test_tests.py"} == {}
