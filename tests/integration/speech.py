"""Folders of real speech for integration tests: a few of the Debian prompts, with their transcripts beside them."""

from __future__ import annotations

import shutil
from pathlib import Path


def prompts(folder: Path, count: int = 28, skip: int = 0) -> Path:
    """Copy `count` prompts of three to eight words into `folder`, after the first `skip` of them."""
    from spiritlm_core.intake.debian import prompt_path
    from spiritlm_core.intake.sources.prompts import PromptsSource

    folder.mkdir(parents=True, exist_ok=True)
    found = [draft for draft in PromptsSource().drafts() if draft.text and 3 <= len(draft.text.split()) <= 8]
    for draft in sorted(found, key=lambda draft: draft.name)[skip : skip + count]:
        path = prompt_path(draft.uri)
        shutil.copyfile(path, folder / path.name)
        (folder / path.name).with_suffix(".txt").write_text(draft.text or "")
    return folder
