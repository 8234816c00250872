"""Telling from the beginning of a file whether it may hold sound, before it is read as a whole."""

import codecs
import io
import re
from pathlib import PurePosixPath
from typing import Any

from spiritlm_core.intake.embedded import open_container

HEAD = 4096  # bytes that `looks_like_audio` wants to see
AUDIO_SUFFIXES = frozenset(
    {".wav", ".wave", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".g722", ".aif", ".aiff"}
    | {".aifc", ".au", ".caf", ".w64", ".rf64", ".sph", ".wma", ".webm", ".mka", ".amr", ".ac3", ".mp2", ".m4b"}
    | {".mkv", ".mov", ".3gp", ".wv", ".tta", ".voc", ".nist", ".spx", ".ape", ".avi"}
)
"""Names that claim to hold sound; of another name only the content can tell (``.ts`` may be TypeScript)."""

# containers whose header may be longer than the head, or lie at the file's end
_CONTAINERS = re.compile(
    rb"(RIFF|RF64|BW64)....(WAVE|AVI )|riff\x2e\x91\xcf\x11|FORM....AIF[FC]|caff\0|\.snd\0|fLaC|OggS\0|ID3[\x02-\x04]"
    rb"|MAC |wvpk|TTA1|\x1a\x45\xdf\xa3|\x30\x26\xb2\x75\x8e\x66\xcf\x11|Creative Voice File|NIST_1A|#!AMR|\0\0\x01\xba"
    rb"|\0...(moov|mdat|wide|ftyp(?!avif|avis|hei|hev|mif1|msf1|jxl ))",
    re.DOTALL,
)

_OTHERS = re.compile(
    rb"PK\x03\x04|%PDF|\x1f\x8b|BZh|7z\xbc\xaf|\xfd7zXZ|\x28\xb5\x2f\xfd|\x7fELF|SQLite|PAR1|RIFF|FORM|MThd"
)


def looks_like_audio(head: bytes, name: str) -> bool:
    """Whether a file may hold sound, and so must become a row.

    Args:
        head: its first bytes, `HEAD` of them or the whole of a shorter file.
        name: its name; one of `AUDIO_SUFFIXES` is a claim that is taken seriously whatever the content.
    """
    if PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES or _CONTAINERS.match(head):
        return True
    return bool(_streams(head))


def text_instead(head: bytes) -> str:
    """What to say of a file that should hold data and begins as readable text; empty if it does not."""
    text = _readable(head)
    if not text or not text.strip():
        return ""
    pulled = "; `git lfs pull` fetches the file itself" if text.startswith("version https://git-lfs") else ""
    return f"it is text, which begins {' '.join(text.split())[:60]!r}{pulled}"


def is_headerless(head: bytes) -> bool:
    """Whether a file cannot be told by its beginning, as raw G.722 cannot: no container, no picture, no text."""
    if _CONTAINERS.match(head) or _OTHERS.match(head) or _streams(head) is not None:
        return False
    return _readable(head) is None


def _readable(head: bytes) -> str | None:
    """The text that a file begins with; null if it holds bytes that are none."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return None
    return text if all(letter.isprintable() or letter.isspace() for letter in text) else None


def _streams(head: bytes) -> list[Any] | None:
    """Streams of sound that libav finds; null where it knows nothing like it."""
    import av

    try:
        with open_container(io.BytesIO(head)) as box:
            # libav takes a pair of bytes far inside any file for MP3, which begins with a frame
            return None if box.format.name == "mp3" and head[:1] != b"\xff" else list(box.streams.audio)
    except (av.FFmpegError, ArithmeticError, LookupError, TypeError, ValueError):
        return None
