"""The columns of a table of clips: what the usual data sets call them, and which values they may hold."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from spiritlm_core.errors import Rejection, SourceError
from spiritlm_core.intake.draft import Draft, clean
from spiritlm_core.intake.files import File, is_web, local_path, local_uri, printable
from spiritlm_core.intake.notes import note, some
from spiritlm_core.intake.rights import FIELDS, Rights
from spiritlm_core.intake.source import MOST_CHANNELS

Row = dict[str, Any]
ALIASES: dict[str, tuple[str, ...]] = {
    "path": (
        *("path", "audio", "audio_filepath", "audio_path", "audio_file", "audio_url", "file", "file_name", "filename"),
        *("filepath", "file_path", "audio_filename", "audio_file_name", "wav", "wav_path", "wav_file", "wav_filename"),
    ),
    "text": ("text", "transcript", "transcription", "sentence"),
    "speaker": ("speaker", "speaker_id", "speaker_name", "spk_id", "client_id"),
    "language": ("language", "lang", "locale"),
    "start": ("start", "offset", "start_time", "begin", "begin_time", "start_seconds"),
    "end": ("end", "end_time", "stop", "stop_time", "end_seconds"),
    "duration": ("duration",),
    "channel": ("channel",),
    "label": ("label",),
    "licence": ("licence", "license"),
    "consent": ("consent",),
    "expires": ("expires", "consent_expires"),
}
"""Field of a clip to the names of its column, the first one found counts. Manifests and fine-tuning share them."""
_TEXTUAL = re.compile(r"text|transcri|sentence|utterance|caption|prompt|normali[sz]ed")
_TIME = re.compile(r"(^|_)(start|begin|onset|offset|end|stop)(_|$)")
_LOOKED_AT = 100  # rows in which unused texts and times are looked for


@dataclass(frozen=True)
class Doubled:
    """An object of JSON that gives one name two values: nobody knows which is meant."""

    name: str


def read_json(text: str | bytes) -> Any:
    """JSON, whose :class:`Doubled` objects other readers take for one with the last value.

    Raises ValueError or RecursionError: it is none.
    """
    return _JSON.decode(text if isinstance(text, str) else text.decode(json.detect_encoding(text), "surrogatepass"))


def _object(pairs: list[tuple[str, Any]]) -> Row | Doubled:
    row = dict(pairs)
    if len(row) == len(pairs):
        return row
    names = [name for name, _ in pairs]
    return Doubled(next(name for name in names if names.count(name) > 1))


_JSON = json.JSONDecoder(object_pairs_hook=_object)  # made once: a table has a million lines


def object_of(value: Any) -> Row:
    """An object out of :func:`read_json`. Raises Rejection, which says what the value is instead."""
    if isinstance(value, Doubled):
        raise Rejection(f"names {value.name!r} twice")
    if not isinstance(value, dict):
        raise Rejection("not a JSON object")
    return value


def object_in(line: str | bytes) -> Row:
    """An object out of a line of JSON. Raises Rejection, which says what the line is instead."""
    try:
        return object_of(read_json(line))
    except (ValueError, RecursionError) as error:
        raise Rejection(f"not JSON: {error}") from error


def names_of(field: str, said: Mapping[str, str]) -> tuple[str, ...]:
    """What the column of `field` may be called: as `said`, else like the field itself or one of its aliases."""
    if field in said:
        return (said[field],)
    group = next((names for names in ALIASES.values() if field in names), ())
    return (field, *(name for name in group if name != field))


class Columns:
    """Reads the rows of one table, and knows afterwards which of its texts were not used."""

    def __init__(self, said: Mapping[str, str], shown: str) -> None:
        """Take `said` of ``columns:`` (field to column) and the name that messages call the table."""
        self._said = {field: column.strip().lower() for field, column in said.items()}
        self._names = {field: names_of(field, self._said) for field in ALIASES}
        self._shown, self._rows = shown, 0
        self._seen: set[str] = set()
        self._texts: dict[str, None] = {}
        self._times: dict[str, None] = {}

    def known(self, header: list[str]) -> int:
        """How many fields the columns of `header` fill; 0 if none of them is a path."""
        fields = [field for field, names in self._names.items() if set(names) & set(header)]
        return len(fields) if "path" in fields else 0

    def draft(self, row: Row) -> Draft:
        """What a row (column in lower case to value) says; its file is still to be found.

        Raises:
            Rejection: a value that is none, or no path.
        """
        self._rows += 1
        self._seen.update(row)
        inside = (row.get(name) for name in self._names["path"])
        file = next((value for value in inside if isinstance(value, File)), None)  # better than a path beside it
        path = file.path if file else _path(self._value(row, "path"))
        self._look(row)
        start, end = window(*(number_of(self._value(row, name), name) for name in ("start", "end", "duration")))
        text, speaker, language = (text_of(self._value(row, name), name) for name in ("text", "speaker", "language"))
        channel, label = _channel(self._value(row, "channel")), _label(self._value(row, "label"))
        try:
            rights = Rights.of({name: self._value(row, name) for name in FIELDS})
        except ValueError as problem:
            raise Rejection(str(problem)) from problem
        place = (path, file.uri if file else "", file)
        return Draft(*place, clean(text), speaker, language, start, end, channel, label, rights)

    def finish(self) -> None:
        """Say which texts were seen and not used. Raises SourceError if a column that was named is nowhere."""
        for field, column in self._said.items():
            if self._rows and column not in self._seen:
                there = ", ".join(sorted(self._seen))
                raise SourceError(f"{self._shown}: there is no column {column!r} (columns.{field}), only {there}")
        taken = next((name for name in self._names["text"] if name in self._seen), None)
        unused = some([repr(name) for name in self._texts if name != taken])
        if unused and taken is None:
            how = "a manifest source can name it: `#text=NAME`"
            note(f"{self._shown}: no text column was recognised among {unused}; {how}")
        elif unused:
            note(f"{self._shown}: the text is taken from {taken!r}, not from {unused}")
        if self._times and self._seen.isdisjoint((*self._names["start"], *self._names["end"])):
            times = some([repr(name) for name in self._times])
            note(f"{self._shown}: whole files are taken: `start` and `end` in seconds would part them, not {times}")

    def _look(self, row: Row) -> None:
        if self._rows <= _LOOKED_AT:
            claimed = {name for field, names in self._names.items() if field != "text" for name in names}
            others = {name: value for name, value in row.items() if name not in claimed}
            self._texts |= {name: None for name, value in others.items() if _textual(name, value)}
            self._times |= {name: None for name, value in others.items() if _is_time(name, value)}

    def _value(self, row: Row, field: str) -> Any:
        value = next((row[name] for name in self._names[field] if row.get(name) not in (None, "")), None)
        if isinstance(value, Doubled):
            raise Rejection(f"{field} names {value.name!r} twice")
        return value


def _textual(name: str, value: Any) -> bool:
    if isinstance(value, list | dict):  # GigaSpeech: texts of stretches within a row
        inside = value.items() if isinstance(value, dict) else [(name, one) for one in value[:1]]
        return any(_textual(str(within), one) for within, one in inside)
    return isinstance(value, str) and bool(value) and (" " in value.strip() or bool(_TEXTUAL.search(name)))


def _is_time(name: str, value: Any) -> bool:
    return bool(_TIME.search(name) and re.fullmatch(r"\d[\d.:,]*", str(value)))


def _path(value: Any) -> str:
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str) or not path:
        raise Rejection("no path to the audio: one of the columns " + ", ".join(ALIASES["path"]) + " must name it")
    return check_path(path)


def check_path(path: str) -> str:
    """`path` itself. Raises Rejection if no file can be called so."""
    try:
        bad = "\0" in path or not path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        bad = True
    if bad:
        raise Rejection(f"no file can be called {path!r}: the path holds a character that is none")
    return path


def resolve(path: str, root: str) -> str:
    """The URI of what a manifest calls `path`, relative paths starting at `root`.

    Raises:
        Rejection: no file can be called so.
    """
    check_path(path)
    if "://" in path:
        return path
    if root.startswith("s3://") and not path.startswith("/"):
        return f"{root.rstrip('/')}/{path}"
    if is_web(root):
        return urljoin(root.rstrip("/") + "/", path)
    return local_uri(Path(local_path(root)) / path)


def text_of(value: Any, name: str) -> str | None:
    """Text without blanks around it, or a whole number as text. Raises Rejection for anything else."""
    if isinstance(value, float) and value.is_integer():  # what pandas makes of 7 in a column with gaps
        value = int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return None if value is None else str(value)
    if not isinstance(value, str):
        raise Rejection(f"{name} is {_kind(value)}, not text: {printable(repr(value)[:60])}")
    if value.strip() in ("NaN", "nan"):  # what pandas makes of a gap
        raise Rejection(f"{name} is NaN, not text")
    if "\0" in value:
        raise Rejection(f"{name} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Rejection(f"{name} holds half a surrogate pair, a character that no encoding has") from error
    return value.strip() or None


def _kind(value: Any) -> str:
    names = {bool: "a boolean", list: "a list", dict: "an object", float: "a number with a fraction"}
    return "NaN" if value != value else names.get(type(value), type(value).__name__)  # noqa: PLR0124 - NaN alone differs


def number_of(value: Any, name: str) -> float | None:
    """A number that is zero or more, or null. Raises Rejection for anything else."""
    if value is None:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise Rejection(f"{name}: {_short(value)} is not a number") from None
    if not math.isfinite(number) or number < 0:
        raise Rejection(f"{name}: {_short(value)} must be a number, zero or more")
    return abs(number)  # of -0.0, too, which would be another key


def _short(value: Any) -> str:
    return repr(value)[:60].encode("utf-8", "backslashreplace").decode()


def _channel(value: Any) -> int | None:
    number = number_of(value, "channel")
    if number is None:
        return None
    if not number.is_integer() or number >= MOST_CHANNELS:
        raise Rejection(
            f"channel: {_short(value)} must be a whole number below {MOST_CHANNELS}, 0 is the first channel"
        )
    return int(number)


def _label(value: Any) -> str | None:
    """A class has a name or a number; a measure or a list that stands in a column of that name is none."""
    named = isinstance(value, str | int) and not isinstance(value, bool)
    return text_of(value, "label") if named else None


def window(start: float | None, end: float | None, duration: float | None) -> tuple[float | None, float | None]:
    """Stretch of the file; a duration without a start describes the whole file."""
    if end is None and start is not None and duration is not None:
        end = start + duration
    if end is not None and end <= (start or 0.0):
        raise Rejection(f"the stretch ends at {end:g} s, before it starts at {start or 0.0:g} s")
    return (None if start == 0.0 and end is None else start), end
