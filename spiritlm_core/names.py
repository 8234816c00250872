"""File names that come out of files: manifests, indexes of weights, archives, listings of a bucket."""

from __future__ import annotations


def stays_inside(path: str) -> bool:
    """Whether `path`, joined to a folder, names something below that folder."""
    return bool(path) and not path.startswith("/") and ".." not in path.split("/") and "\0" not in path


def checked_name(name: str) -> str:
    r"""`name`, which must be relative and joined by ``/``, without empty parts, ``.``, ``..`` and ``\``.

    Raises:
        ValueError: it is not; a file may not name what lies outside of its own folder.
    """
    if not stays_inside(name) or "\\" in name or any(part in ("", ".") for part in name.split("/")):
        raise ValueError(f"{name!r} is no name of a file below its folder")
    return name
