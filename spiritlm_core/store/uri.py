"""Where bytes lie: a local folder or an S3 prefix, by URI.

Paths inside a store are relative, joined by ``/``. A write is visible whole or not at all.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from spiritlm_core.errors import LakeError
from spiritlm_core.store.local import LocalStore
from spiritlm_core.store.objects import Store
from spiritlm_core.store.s3 import S3Store


def open_store(uri: str | Path) -> Store:
    """Open a store. `uri` is a path, ``file://…`` or ``s3://bucket/prefix``. Raises LakeError for others."""
    text = str(uri)
    scheme, separator, _ = text.partition("://")
    if not separator:
        return LocalStore(Path(text))
    if scheme == "file":
        return LocalStore(Path(unquote(urlsplit(text).path)))
    if scheme == "s3":
        return S3Store(text)
    raise LakeError(f"{text!r}: unknown scheme {scheme!r}; use a path, file:// or s3://")


def split_uri(uri: str) -> tuple[Store, str]:
    """The store that holds one object, and the object's path in it."""
    text = uri.removeprefix("file://") if uri.startswith("file://") else uri
    text = unquote(text) if uri.startswith("file://") else text
    parent, _, name = text.rstrip("/").rpartition("/")
    if text.startswith("s3://") and parent.count("/") < 2:
        raise LakeError(f"{uri!r} names a bucket, not an object")
    return open_store(parent or ("/" if text.startswith("/") else ".")), name
