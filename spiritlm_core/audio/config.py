"""What to ingest, and how recordings become segments. Imports little more than pydantic."""

from __future__ import annotations

import os
import re
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import SourceError
from spiritlm_core.language import LanguageCode, main_code

_Prompts = Literal["en", "es", "fr", "it", "ru"]
PromptLanguage = Annotated[
    _Prompts, BeforeValidator(lambda name: main_code(name, "") if isinstance(name, str) else name)
]
MOST_CHANNELS = 512
"""No recording may have more."""
ClipField = Literal["path", "text", "speaker", "language", "start", "end", "duration", "channel"]


class _Source(FrozenConfig):
    language: LanguageCode | None = Field(None, description="Language of every recording; null takes the recipe's.")
    speaker: str | None = Field(None, description="Speaker of every recording that names none itself.")
    channel: int | None = Field(
        None, ge=0, lt=MOST_CHANNELS, description="Channel to take (0 is the first); null averages them."
    )


class TreeSource(_Source):
    """A folder, or what lies below a prefix on S3."""

    path: str = Field(min_length=1, description="Folder, or s3://bucket/prefix.")
    follow_symlinks: bool = Field(False, description="Read links that leave the folder, too, instead of refusing them.")
    encoding: str = Field("utf-8", description="Character encoding of the transcripts.")


class FolderSource(TreeSource):
    """Any tree of audio files; transcripts beside them, in tables and in lists are found by looking."""

    kind: Literal["folder"] = "folder"
    speaker_from_folder: bool = Field(False, description="The first folder below `path` names the speaker.")


class LibriSpeechSource(TreeSource):
    """``SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt`` with lines ``ID TEXT`` beside ``ID.flac``."""

    kind: Literal["librispeech"] = "librispeech"


class LJSpeechSource(TreeSource):
    """``metadata.csv`` with lines ``ID|TEXT|NORMALISED TEXT`` and ``wavs/ID.wav``."""

    kind: Literal["ljspeech"] = "ljspeech"
    normalized: bool = Field(True, description="Take the third column (numbers written out) where there is one.")


class ManifestSource(_Source):
    """A JSONL, CSV, TSV or Parquet file with a row per clip: path, text, speaker, language, start, end and so on."""

    kind: Literal["manifest"] = "manifest"
    path: str = Field(min_length=1, description="The manifest: .jsonl, .json, .csv, .tsv or .parquet, local or s3://.")
    audio_root: str | None = Field(None, description="Where relative paths start; null is the manifest's own folder.")
    columns: dict[ClipField, str] = Field({}, description="Field (path, text …): column, where its name does not tell.")
    encoding: str = Field("utf-8", description="Character encoding of the manifest; a byte order mark wins.")


class LhotseSource(_Source):
    """Lhotse manifests: cuts, or recordings with supervisions; what any of its corpus recipes writes."""

    kind: Literal["lhotse"] = "lhotse"
    path: str = Field(min_length=1, description="Folder of manifests, or one cuts or recordings manifest.")
    supervisions: str | None = Field(None, description="Supervisions of `path`, where its name does not tell.")


class PromptsSource(_Source):
    """Telephone prompts read by one speaker, from the Debian package ``asterisk-core-sounds-LANG-g722``."""

    kind: Literal["prompts"] = "prompts"
    prompts: PromptLanguage = Field("en", description="Which language's package to fetch.")


SourceConfig = Annotated[
    FolderSource | LibriSpeechSource | LJSpeechSource | ManifestSource | LhotseSource | PromptsSource,
    Field(discriminator="kind"),
]

_MANIFEST = re.compile(r"\.parquet$|\.(jsonl|ndjson|json|csv|tsv|txt|lst|list)(\.(gz|bz2|zst))?$")
_COLUMNS = re.compile(r"#(\w+=[^&=]+(?:&\w+=[^&=]+)*)$")
_KINDS = ("folder", "librispeech", "ljspeech", "manifest", "lhotse", "prompts")


class VadConfig(FrozenConfig):
    """Silero voice activity detection with two thresholds: speech starts above one and ends below the other."""

    onset: float = Field(0.5, gt=0, lt=1, description="Speech starts where its probability reaches this.")
    offset: float = Field(0.15, gt=0, lt=1, description="Speech ends where its probability falls below this.")
    min_speech: float = Field(0.2, ge=0, description="Seconds; shorter bursts are no speech.")
    min_pause: float = Field(0.2, ge=0, description="Seconds; shorter pauses do not separate two regions.")

    @model_validator(mode="after")
    def _ordered(self) -> VadConfig:
        if self.offset > self.onset:
            raise ValueError("offset must not be greater than onset")
        return self


class LimitsConfig(FrozenConfig):
    """What a recording may be; one beyond that is rejected, whatever else its header says."""

    min_rate: int = Field(4_000, ge=1_000, description="Lowest sampling rate, in hertz.")
    max_rate: int = Field(768_000, le=1_536_000, description="Highest sampling rate, in hertz.")
    max_channels: int = Field(64, ge=1, le=MOST_CHANNELS, description="Most channels.")
    max_hours: float = Field(
        24.0, gt=0, le=1000, description="Longest recording; an hour takes 115 MB of temporary disk space."
    )


class AudioConfig(FrozenConfig):
    """How a recording is checked and cut into segments."""

    min_seconds: float = Field(0.1, gt=0, description="Shorter recordings are rejected.")
    max_seconds: float = Field(30.0, ge=1, le=3600, description="Longest segment.")
    padding: float = Field(0.3, ge=0, le=1, description="Seconds kept before and after the speech of a segment.")
    max_pause: float = Field(
        3.0, gt=0, description="Seconds; a longer pause always ends a segment of a long recording."
    )
    min_peak_dbfs: float = Field(-50.0, le=0, description="A recording that never gets louder than this is silent.")
    max_clipped_share: float = Field(0.1, gt=0, le=1, description="Reject when more of the samples are at full scale.")
    limits: LimitsConfig = LimitsConfig()
    vad: VadConfig = VadConfig()
    held_out_share: float = Field(0.1, ge=0, lt=1, description="Share of recordings (or speakers) kept for evaluation.")
    held_out_by: Literal["recording", "speaker"] = Field("recording", description="What is held out as a whole.")
    split_salt: str = Field("", description="Change it to draw another held-out set.")

    def idle(self) -> AbstractSet[str]:
        """How a held-out set is drawn that there is not."""
        return frozenset() if self.held_out_share else {"held_out_by", "split_salt"}

    @model_validator(mode="after")
    def _room_for_speech(self) -> AudioConfig:
        if self.max_seconds < 4 * self.padding:
            raise ValueError("max_seconds must be at least four times the padding")
        return self


class ShardingConfig(FrozenConfig):
    """How items are packed into shards; kept out of the stage's fingerprint, the rows do not depend on it."""

    shard_items: int = Field(64, ge=1, description="Most items of one shard.")
    shard_bytes: int = Field(256 * 2**20, ge=1, description="Most bytes of source audio of one shard.")


def parse_source(text: str) -> SourceConfig:
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
    if not colon or rest.startswith("//") or (kind not in _KINDS and os.path.lexists(text)):
        return _source(_guess(text), text, columns)
    if kind not in _KINDS:
        raise SourceError(f"source {text!r}: {kind!r} is not one of {', '.join(_KINDS)}, and there is no such path")
    return _source(kind, rest, columns)


def _source(kind: str, value: str, columns: dict[str, str]) -> SourceConfig:
    field = "prompts" if kind == "prompts" else "path"
    if kind == "prompts" and main_code(value, "") not in get_args(_Prompts):
        raise SourceError(f"prompts:{value}: there are prompts in {', '.join(get_args(_Prompts))}")
    if field == "path" and value and ("://" not in value or value.startswith("file://")):
        value = str(Path(value.removeprefix("file://")).expanduser())
    try:
        said = {"kind": kind, field: value} | ({"columns": columns} if columns else {})
        return TypeAdapter(SourceConfig).validate_python(said)
    except ValidationError as error:
        where = f" ({columns})" if columns else ""
        raise SourceError(f"source {kind}:{value}{where}: {error.errors()[0]['msg']}") from error


def _guess(path: str) -> str:
    """The kind of source that a path looks like."""
    if _MANIFEST.search(path.partition("?")[0].lower()):
        return "manifest"
    if path.startswith("s3://"):
        return "folder"
    if "://" in path and not path.startswith("file://"):
        raise SourceError(
            f"source {path!r}: a web address cannot be listed: give a manifest there (.jsonl, .csv …), or a local one "
            "whose paths are web addresses"
        )
    root = Path(path.removeprefix("file://")).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "there is no such folder"
        raise SourceError(f"source {path!r}: {what}, nor is it a manifest (.jsonl, .csv, .parquet …)")
    if _is_ljspeech(root / "metadata.csv"):
        return "ljspeech"
    return "librispeech" if next(root.rglob("*.trans.txt"), None) else "folder"


def _is_ljspeech(metadata: Path) -> bool:
    """Whether the first line is ``ID|TEXT`` or ``ID|TEXT|NORMALISED TEXT``, rather than a header or ``PATH|TEXT``."""
    try:
        with metadata.open("rb") as file:
            first = re.split(rb"[\r\n]", file.read(65_536).lstrip())[0].decode("utf-8", "replace")
    except OSError:
        return False
    name, *texts = first.split("|")
    return len(texts) in (1, 2) and not re.search(r"\.\w{2,4}$", name) and not _HEADER.search(name)


_HEADER = re.compile(r"^\ufeff?\s*(id|path|audio\w*|file\w*|wav\w*)\s*$", re.IGNORECASE)
