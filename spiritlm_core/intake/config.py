"""What goes in: sources of recordings and of texts, and how they are packed."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, ValidationError

from spiritlm_core.config import FrozenConfig, message_of
from spiritlm_core.errors import SourceError
from spiritlm_core.intake.files import UNLISTED, local_path
from spiritlm_core.intake.source import Source
from spiritlm_core.intake.sources.folder import FolderSource
from spiritlm_core.intake.sources.lhotse import LhotseSource
from spiritlm_core.intake.sources.librispeech import LibriSpeechSource
from spiritlm_core.intake.sources.ljspeech import LJSpeechSource, is_ljspeech
from spiritlm_core.intake.sources.manifest import ManifestSource
from spiritlm_core.intake.sources.prompts import PromptsSource
from spiritlm_core.intake.sources.speak import SpeakSource

SourceConfig = Annotated[
    FolderSource | LibriSpeechSource | LJSpeechSource | ManifestSource | LhotseSource | PromptsSource | SpeakSource,
    Field(discriminator="kind"),
]
"""Any source of recordings. A new one is a class in a file of its own, and its name here."""
KINDS: dict[str, type[Source]] = {
    source.model_fields["kind"].default: source for source in get_args(get_args(SourceConfig)[0])
}
_MANIFEST = re.compile(r"\.parquet$|\.(jsonl|ndjson|json|csv|tsv|txt|lst|list)(\.(gz|bz2|zst))?$")
_COLUMNS = re.compile(r"#(\w+=[^&=]+(?:&\w+=[^&=]+)*)$")


class TextSource(FrozenConfig):
    """Text documents besides the recordings: plain text, JSON lines or Parquet."""

    path: str = Field(min_length=1, description="A file, a folder, or a pattern with *, ** and ?; local or s3://….")
    format: Literal["text", "jsonl", "parquet"] | None = Field(
        None,
        description="Format of the files; null goes by their names (.txt, .md, .jsonl, .ndjson, .parquet; also .gz …).",
    )
    field: str = Field("text", min_length=1, description="Field that holds the text, in JSON lines and Parquet.")
    documents: Literal["file", "paragraph"] = Field(
        "file",
        description="Whether a plain-text file is one document, or one per paragraph (blank lines between them).",
    )
    encoding: str = Field("utf-8", description="Character encoding of plain text and JSON lines.")
    min_words: int = Field(1, ge=1, description="Fewest words of a document; shorter ones are rejected.")
    held_out_share: float = Field(0.01, ge=0, lt=1, description="Share of the documents kept for evaluation.")
    split_salt: str = Field("", description="Any text; another one draws another held-out set.")
    piece_bytes: int = Field(
        32 * 2**20,
        ge=1,
        le=2**30,
        description="A larger file of several documents is read in pieces of about so many bytes.",
    )
    follow_symlinks: bool = Field(False, description="Read links that leave the folder, instead of refusing them.")


class ShardingConfig(FrozenConfig):
    """How items are packed into shards; kept out of the stage's fingerprint, the rows do not depend on it."""

    shard_items: int = Field(64, ge=1, description="Most items of one shard.")
    shard_bytes: int = Field(256 * 2**20, ge=1, description="Most bytes of source audio of one shard.")


def parse_source(text: str) -> Source:
    """Read the short form of a source: ``prompts:en``, ``KIND:PATH``, or a path whose layout is guessed.

    Args:
        text: for example ``prompts:fr``, ``librispeech:/data/LibriSpeech``, ``s3://bucket/voices``, ``clips.jsonl``,
            ``clips.jsonl#text=raw_text&path=clip`` (which column is which field).

    Raises:
        SourceError: the kind is unknown, a local path does not exist, or the value does not fit.
    """
    named = None if os.path.lexists(text) else _COLUMNS.search(text)
    columns = dict(pair.split("=", 1) for pair in named[1].split("&")) if named else {}
    text = text[: named.start()] if named else text
    kind, colon, rest = text.partition(":")
    if not colon or rest.startswith("//") or (kind not in KINDS and os.path.lexists(text)):
        return _source(_guess(text), text, columns)
    if kind not in KINDS:
        raise SourceError(f"source {text!r}: {kind!r} is not one of {', '.join(KINDS)}, and there is no such path")
    return _source(kind, rest, columns)


def _source(kind: str, value: str, columns: dict[str, str]) -> Source:
    field = KINDS[kind].short
    if field == "path" and value and ("://" not in value or value.startswith("file://")):
        value = str(Path(local_path(value)).expanduser())
    try:
        said = {"kind": kind, field: value} | ({"columns": columns} if columns else {})
        return KINDS[kind].model_validate(said)
    except ValidationError as error:
        where = f" ({columns})" if columns else ""
        why = message_of(error.errors()[0])
        raise SourceError(f"source {kind}:{value}{where}: {why}") from error


def _guess(path: str) -> str:
    """The kind of source that a path looks like."""
    if _MANIFEST.search(path.partition("?")[0].lower()):
        return "manifest"
    if path.startswith("s3://"):
        return "folder"
    if "://" in path and not path.startswith("file://"):
        raise SourceError(f"source {path!r}: {UNLISTED}")
    root = Path(local_path(path)).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "there is no such folder"
        raise SourceError(f"source {path!r}: {what}, nor is it a manifest (.jsonl, .csv, .parquet …)")
    if is_ljspeech(root / "metadata.csv"):
        return "ljspeech"
    return "librispeech" if next(root.rglob("*.trans.txt"), None) else "folder"
