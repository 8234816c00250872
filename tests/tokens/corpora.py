"""Random `sequences` tables, and ways to read documents back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from spiritlm_core.lake.schema import Row, table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.config import TokensConfig, UniformLaw
from spiritlm_core.tokens.pack import Packed
from spiritlm_core.tokens.stage import SEQUENCES, CopiedSequencesStage, switches
from spiritlm_core.tokens.text_stage import TEXT
from spiritlm_core.tokens.vocabulary import Vocabulary

VOCABULARY = Vocabulary(200, hubert=50, pitch=8, style=4, bos=1, eos=2)


def segment(
    rng: np.random.Generator,
    recording: str,
    index: int,
    words: int,
    *,
    vocabulary: Vocabulary = VOCABULARY,
    straddle: float = 0.1,
    empty: float = 0.1,
) -> Row:
    """One row; some words share a token, some have no speech."""
    text = np.where(rng.random(words) < straddle, 0, rng.integers(1, 4, words))
    speech = np.where(rng.random(words) < empty, 0, rng.integers(1, 12, words))
    text[0] = speech[-1] = 1
    allowed = (rng.random(words) >= straddle) & (text > 0)
    low, high = vocabulary.speech_marker + 1, vocabulary.size
    return {
        "utterance_id": f"{recording}-{index}",
        "recording_id": recording,
        "start": 10.0 * index,
        "duration": 9.5,
        "split": "train",
        "text": "",
        "words": [f"w{i}" for i in range(words)],
        "text_ids": rng.integers(3, vocabulary.text_size, text.sum()),
        "text_offsets": np.concatenate([[0], np.cumsum(text)]),
        "speech_ids": rng.integers(low, high, speech.sum()),
        "speech_offsets": np.concatenate([[0], np.cumsum(speech)]),
        "can_switch": switches(text, speech, allowed),
        "speech_only": False,
    }


def without_text(row: Row) -> Row:
    """The row as one that has speech only."""
    count = len(row["speech_ids"])  # type: ignore[arg-type]
    lone = {"words": [""], "text_ids": [], "text_offsets": [0, 0], "speech_offsets": [0, count], "can_switch": [True]}
    return {**row, **lone, "speech_only": True}


def given_up(row: Row) -> Row:
    """The row as a rejected one."""
    kept = {name: row[name] for name in ("utterance_id", "recording_id", "start", "split")}
    return {**kept, "reject_stage": "words", "reject_reason": "for a test"}


def random_rows(seed: int, recordings: int = 12, most_words: int = 30, **options: float) -> list[Row]:
    """A corpus with recordings of 1 to 5 segments, some of them rejected or without text."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for recording in range(recordings):
        for index in range(int(rng.integers(1, 6))):
            row = segment(rng, f"r{recording:03}", index, int(rng.integers(1, most_words + 1)), **options)  # type: ignore[arg-type]
            kind = rng.random()
            rows.append(given_up(row) if kind < 0.1 else without_text(row) if kind < 0.2 else row)
    return rows


def table(rows: list[Row]) -> pa.Table:
    return table_of(rows, SEQUENCES)


def read_spans(ids: np.ndarray, vocabulary: Vocabulary = VOCABULARY) -> list[tuple[str, list[int]]]:
    """The spans of a document: modality and ids without the marker; BOS and EOS are checked and dropped."""
    found: list[tuple[str, list[int]]] = []
    body = ids.tolist()
    assert body.pop(0) == vocabulary.bos
    if body[-1] == vocabulary.eos:
        body.pop()
    for token in body:
        if token in (vocabulary.text_marker, vocabulary.speech_marker):
            found.append(("text" if token == vocabulary.text_marker else "speech", []))
        else:
            assert (token > vocabulary.speech_marker) == (found[-1][0] == "speech")
            found[-1][1].append(token)
    return found


def plain(packed: Packed) -> tuple:
    return packed.input_ids.tolist(), packed.document_ids.tolist(), packed.streams, packed.keys


def text_rows(seed: int, count: int = 20, most: int = 200) -> list[Row]:
    """Documents of 1 to `most` tokens, a few rejected or held out."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for i in range(count):
        row: Row = {
            "document_id": f"d{i:03}",
            "split": "train",
            "text": "",
            "text_ids": rng.integers(3, 200, rng.integers(1, most)),
        }
        bad = {"reject_stage": "text", "reject_reason": "for a test", "text_ids": None}
        kind = rng.random()
        rows.append({**row, **bad} if kind < 0.1 else {**row, "split": "held_out"} if kind < 0.2 else row)
    return rows


def text_view(rows: list[Row], shards: int = 1) -> TableView:
    return TableView.of(
        *(table_of([rows[i] for i in part], TEXT) for part in np.array_split(np.arange(len(rows)), shards))
    )


def with_copies(rows: list[Row], count: int, missing: float = 0.0, seed: int = 0) -> TableView:
    """A table in shards whose good train rows have copies: the same words, every speech token another one."""
    rng, found = np.random.default_rng(seed), []
    for row in rows:
        copies = [None if rng.random() < missing else _copy(row, number + 1) for number in range(count)]
        train = row["split"] == "train" and row.get("reject_stage") is None
        found.append({**row, "copies": copies if train else [] if row["split"] == "held_out" else None})
    parts = (found[start : start + 17] for start in range(0, len(found), 17))
    return TableView.of(*(table_of(part, CopiedSequencesStage.schema) for part in parts))


def _copy(row: Row, number: int) -> Row:
    if row.get("reject_stage") is not None:
        return {}
    low = VOCABULARY.speech_marker + 1
    ids = (np.asarray(row["speech_ids"]) - low + number) % (VOCABULARY.size - low) + low
    return {"speech_ids": ids, "speech_offsets": row["speech_offsets"], "can_switch": row["can_switch"]}


def as_before_blocks(state: dict) -> dict:
    """A state as versions wrote it that had the whole split in memory."""
    streams = {name: cursor[:3] for name, cursor in state["streams"].items()}
    return {"window": state["window"], "streams": streams, "row": state["row"]}


MIXED = TokensConfig(
    context_length=128,
    window=6,
    text_span=UniformLaw(minimum=2, maximum=6),
    speech_span=UniformLaw(minimum=1, maximum=4),
)
ROWS = random_rows(7, recordings=20)
TEXT_VIEW = text_view(text_rows(1))
