"""Which files hold texts or rows, and in what format, by their names."""

import re
from pathlib import Path

from spiritlm_core.errors import SourceError
from spiritlm_core.intake.config import TextSource
from spiritlm_core.intake.files import File, list_tree, local_path, local_uri, stat_file
from spiritlm_core.intake.opening import format_of

_WILD = re.compile(r"[*?]")


def list_files(source: TextSource) -> list[File]:
    """The files of a source, sorted by path; those of a folder by their names, an unknown name is no text.

    Raises SourceError: there is nothing of that name.
    """
    path = source.path if source.path.startswith("s3://") else str(Path(local_path(source.path)).expanduser())
    if wild := _WILD.search(path):
        root = path[: wild.start()].rpartition("/")[0] or "."
        pattern = _regex(path[len(root) + 1 :] if path.startswith(f"{root}/") else path)
        files = [file for file in list_tree(root, follow_symlinks=source.follow_symlinks) if pattern.match(file.path)]
        return [file for file in files if source.format or file.error or format_of(file.path)]
    uri = path if path.startswith("s3://") else local_uri(path)
    if not Path(path).is_dir() and not (file := stat_file(uri)).error:
        return [_known(file, source)]
    if not path.startswith("s3://") and not Path(path).is_dir():
        raise SourceError(f"texts {source.path}: there is no such file or folder")
    files = list_tree(path, follow_symlinks=source.follow_symlinks)
    return [file for file in files if (kind := format_of(file.path)) and source.format in (None, kind)]


def _known(file: File, source: TextSource) -> File:
    if source.format is None and format_of(file.path) is None:
        raise SourceError(f"texts {source.path}: its name tells no format, set `format` to text, jsonl or parquet")
    return file


def _regex(pattern: str) -> re.Pattern[str]:
    """`*` and `?` stay within a folder, `**/` is any number of folders."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(parts.get(piece, re.escape(piece)) for piece in pieces) + r"\Z", re.DOTALL)
