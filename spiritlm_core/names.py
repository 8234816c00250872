"""File names that come out of files: manifests, indexes of weights, archives, listings of a bucket."""

from typing import Annotated

from pydantic import AfterValidator

_LONGEST = 255  # bytes of a part of a name, on every usual file system


def stays_inside(path: str) -> bool:
    """Whether `path`, joined to a folder, names something below that folder."""
    return bool(path) and not path.startswith("/") and ".." not in path.split("/") and "\0" not in path


def checked_name(name: str) -> str:
    r"""`name`, which must be relative and joined by ``/``, without empty, overlong parts, ``.``, ``..`` and ``\``.

    Raises:
        ValueError: it is not; a file may not name what lies outside of its own folder.
    """
    parts = name.encode(errors="replace").split(b"/")
    wrong = "\\" in name or any("\ud800" <= character <= "\udfff" for character in name)
    if not stays_inside(name) or wrong or any(part in (b"", b".") or len(part) > _LONGEST for part in parts):
        raise ValueError(f"{name!r} is no name of a file below its folder")
    return name


FileName = Annotated[str, AfterValidator(checked_name)]  # the type of a field that holds such a name
