"""Rows of a data set of the user: texts, where the recordings are, the split; and the recordings as speech tokens."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from spiritlm_core.audio.samples import Waveform
from spiritlm_core.audio.waveform import read_waveform
from spiritlm_core.errors import Rejection, SourceError, is_machine_error
from spiritlm_core.finetune.config import SplitConfig
from spiritlm_core.intake.files import printable
from spiritlm_core.intake.opening import read_uri
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.speech.stage import encode_clips
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from spiritlm_core.split import draw_split

TASK_ROWS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("place", pa.int64()),  # line or row in its file, from 1
        pa.field("split", pa.string()),  # where a column says it
        pa.field("texts", pa.string()),  # JSON: field → text
        pa.field("recordings", pa.string()),  # JSON: field → where the recording is, see `Recording`
        pa.field("size", pa.int64()),  # bytes of audio
        pa.field("error", pa.string()),  # why the row cannot be used
    ]
)
"""Input rows of :class:`spiritlm_core.finetune.stage.TaskUnitsStage`."""


@dataclass(frozen=True)
class Recording:
    """Where the speech of one field is, a file or a row of the data file, unless it is given as speech tokens."""

    uri: str | None = None
    tokens: str | None = None
    sha256: str | None = None

    @property
    def content(self) -> str:
        """Identifies what is said."""
        return str(self.sha256 or self.tokens)


@dataclass(frozen=True)
class TaskRow:
    """One row; see `TASK_ROWS`. `key` covers all that its example is made from, never a path or a time."""

    key: str
    name: str
    source_uri: str
    place: int
    split: str | None = None
    texts: str = "{}"
    recordings: str = "{}"
    size: int = 0
    error: str | None = None

    def text_fields(self) -> dict[str, str]:
        """Field → text."""
        return json.loads(self.texts)

    def recording_fields(self) -> dict[str, Recording]:
        """Field → where the recording is."""
        return {field: Recording(**where) for field, where in json.loads(self.recordings).items()}


def commonest(reasons: Mapping[str, int], most: int = 3) -> str:
    """Why rows were rejected, on one line: the commonest reasons and how often each was met."""
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{count} times: {reason}" for reason, count in ranked[:most]]
    return "; ".join([*told, *([f"and {len(ranked) - most} other reasons"] if ranked[most:] else [])])


def split_of(key: str, said: str | None, config: SplitConfig) -> str:
    """Either "train" or "held_out": what the data says, else drawn from the row's content alone."""
    return draw_split(key, config.salt, config.held_out_share) if said is None else said


@dataclass
class Spoken:
    """What became of a row."""

    tokens: dict[str, str] = field(default_factory=dict)  # field → speech tokens such as ``[St3][Pi1][Hu7]``
    seconds: float = 0.0  # of all recordings
    error: Exception | None = None  # why the row cannot be used


def speak(rows: Sequence[TaskRow], tokenizer: Callable[[], SpeechTokenizer]) -> list[Spoken]:
    """Speech tokens of every recording of every row; `tokenizer` is called if there is a recording.

    Recordings are read as :class:`SpiritLM` reads those in a prompt, so that both give the same tokens. Raises
    SourceError: a file changed since the rows were read; ModelReferenceError: there is no speech tokenizer.
    """
    found = [Spoken(error=Rejection(row.error) if row.error else None) for row in rows]
    clips: list[tuple[Spoken, str, Waveform]] = []
    for row, spoken in zip(rows, found, strict=True):
        if spoken.error is None:
            try:
                clips += [(spoken, name, clip) for name, clip in _take(row, spoken)]
            except Rejection as problem:
                spoken.error = problem
    clips = [clip for clip in clips if clip[0].error is None]
    if clips:
        for (spoken, name, _), tokens in zip(
            clips, encode_clips(tokenizer(), [clip for *_, clip in clips]), strict=True
        ):
            if isinstance(tokens, Rejection):
                spoken.error = Rejection(f"{name}: {tokens}")
            else:
                spoken.tokens[name] = tokens
    return found


def _take(row: TaskRow, spoken: Spoken) -> Iterator[tuple[str, Waveform]]:
    for name, recording in row.recording_fields().items():
        if recording.tokens is not None:
            spoken.tokens[name] = "".join(recording.tokens.split())
            continue
        clip = _waveform(name, recording)
        spoken.seconds += len(clip) / SAMPLE_RATE
        yield name, clip


def _waveform(name: str, recording: Recording) -> Waveform:
    """The sound of a recording. Raises SourceError if its file is no longer the one that was listed."""
    where = str(recording.uri)
    try:
        data = read_uri(where)
    except OSError as error:
        if is_machine_error(error):
            raise
        raise Rejection(f"{name}: {where}: cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != recording.sha256:
        raise SourceError(f"{printable(where)} changed while it was read: run again")
    try:
        return read_waveform(io.BytesIO(data), where)
    except Rejection as problem:
        raise Rejection(f"{name}: {problem}") from problem
