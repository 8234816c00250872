"""What the documentation promises is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from spiritlm_core.cli.commands import COMMANDS, Commands

ROOT = Path(__file__).parents[1]
ROWS = re.findall(r"^\|.+\| `([\w/]+\.py)(?:::(\w+))?` \|$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)


def test_the_table_of_faults_is_read() -> None:
    assert len(ROWS) > 50


@pytest.mark.parametrize(("file", "test"), ROWS)
def test_every_fault_of_the_table_has_its_test(file: str, test: str) -> None:
    text = (ROOT / "tests" / file).read_text()
    assert f"def {test}(" in text if test else "def test_" in text


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("infra/**/*.md"), *ROOT.glob(".github/**/*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())]
    assert links
    assert not [(page.name, link) for page, link in links if not (page.parent / link).exists()]


def commands_of(page: Path) -> list[list[str]]:
    """The words behind ``spiritlm`` of each command in blocks of code and between backquotes."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    block = r"^(?: {4})?(?:\S+=\S+ )*(?:\.venv/bin/)?spiritlm ([a-z][a-z-]*(?: .*)?)$"
    lines = re.findall(block, text, re.MULTILINE) + re.findall(r"`spiritlm ([a-z][a-z-]*(?: [^`…]*)?)`", text)
    return [re.split(r"\s\\?\|\s| {2,}|\s#|;", line)[0].split() for line in lines]


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("infra/**/*.md")]
WORDS = [(page.name, words) for page in PAGES for words in commands_of(page)]


def test_the_commands_of_the_pages_are_there_with_their_options() -> None:
    wrong, names = [], {command.name for command in COMMANDS}
    walk = "count-words"  # the command that the guide for contributors adds
    for page, words in WORDS:
        if words[0] == walk:
            continue
        possible = (" ".join(words[:2]), words[0], f"{words[0]} suite")
        if (name := next((name for name in possible if name in names), None)) is None:
            wrong.append((page, words))
            continue
        group, _, last = name.rpartition(" ")
        known = {option for param in Commands(group)[last].params for option in param.opts + param.secondary_opts}
        given = {re.split(r"[=\]]", word)[0] for word in words if re.match("--[a-z]", word)}
        wrong += [(page, words)] if given - known - {"--help"} else []
    assert len(WORDS) > 150
    assert wrong == []


def test_the_site_builds_with_every_link_checked_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "Load a model." in (tmp_path / "api.html").read_text()
    loaded = re.compile(r"""<(?:script|img|link)[^>]+(?:src|href)="(?:https?:)?//|@import|url\(['"]?(?:https?:)?//""")
    pages = [*tmp_path.rglob("*.html"), *tmp_path.rglob("*.css")]
    assert pages
    assert [page.name for page in pages if loaded.search(page.read_text())] == []


def test_files_that_the_guide_for_contributors_names_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:flows|tasks|spiritlm_core|tests|docs|infra|benchmarks|\.github)/[\w./-]*)`", text))
    written = set(re.findall(r"^1\. Write `([\w/.]+)`", text, re.MULTILINE))
    assert len(named) > 15
    assert {name for name in named if not (ROOT / name).exists()} <= written


def test_ci_runs_what_the_makefile_offers() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    steps = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    called = {step.removeprefix("make ") for step in steps if step.startswith("make ")}
    assert {"setup", "check", "docs", "test", "test-slow"} == called & targets == called
    assert not [step for step in steps if not step.startswith(("make ", "git diff", "sudo infra/browser.sh"))]


def test_forms_for_issues_are_forms() -> None:
    forms = [yaml.safe_load(path.read_text()) for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml")]
    assert len(forms) == 2
    for form in forms:
        assert form.keys() >= {"name", "description", "body"}
        ids = [field["id"] for field in form["body"]]
        assert len(set(ids)) == len(ids)
