"""What MkDocs is told beyond mkdocs.yml: pages of the top folder, links out of docs/, an API page for each room."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the top folder → their names in the site."""
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")
ROOMS = sorted(init.parent.name for init in (ROOT / "spiritlm_core").glob("*/__init__.py") if init.parent.name != "cli")
"""Packages of the core with an API; the commands of `cli` describe themselves."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the rooms to the navigation."""
    config.nav = [*(config.nav or []), {"API": ["api.md", *(f"api/{room}.md" for room in ROOMS)]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the top folder and those of the rooms."""
    pages = {page: _relinked((ROOT / name).read_text(), ".") for name, page in TOP.items()}
    pages |= {f"api/{room}.md": f"# {room}\n\n::: spiritlm_core.{room}\n" for room in ROOMS}
    for page, content in pages.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that leave docs/ into links within the site."""
    del config, files
    return markdown if page.file.generated_by else _relinked(markdown, "docs")


def _relinked(markdown: str, folder: str) -> str:
    """The links of a page in `folder` as links in the site; those to files that are no pages become their text."""

    def relink(link: re.Match[str]) -> str:
        text, target, anchor = link[1], posixpath.normpath(posixpath.join(folder, link[2])), link[3] or ""
        page = TOP.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        return f"[{text}]({page}{anchor})" if page else text

    return _LINK.sub(relink, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Drop the roles of docstrings, such as ``:class:``."""
    del page, config, files
    return re.sub(r":(class|func|meth|data|mod):(?=<code>)", "", html)
