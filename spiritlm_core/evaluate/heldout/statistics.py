"""What the corpus is made of, counted from its tables shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spiritlm_core.intake.rights import NOTHING, Rights, hours_by_licence
from spiritlm_core.intake.speak.utterance import engine_of
from spiritlm_core.lake.view import TableView

ORDER = ("audio", "words", "units", "sequences")  # the stages in the order in which a row can be given up
SHOWN_REASONS = 20  # distinct reasons listed by name; the rest are added up in one line, so that the sum still holds
_AUDIO = ("recording_id", "duration", "speaker", "language", "split", "origin", "source_uri", "reject_stage")
_DURATION_EDGES = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 25.0, 30.0, float("inf"))


def corpus_statistics(
    tables: Mapping[str, TableView], unit_sizes: Mapping[str, int], rights: Mapping[str, Rights] | None = None
) -> dict[str, Any]:
    """Counts over the audio, words, units and sequences tables as a JSON-able dictionary.

    `unit_sizes` is the number of classes of each stream, such as ``{"hubert": 501, "pitch": 64, "style": 100}``; a
    stream with 0 classes is left out. `rights` has what is said of recordings, by recording_id: where anything is,
    hours are counted by licence.
    """
    return {
        "rows": row_statistics(tables),
        "audio": {**_audio_statistics(tables["audio"]), **_licences(tables["audio"], rights or {})},
        "words": _word_statistics(tables["words"]),
        "units": {
            name: unit_statistics(_lists(tables["units"], name), size) for name, size in unit_sizes.items() if size
        },
        "tokens": _token_statistics(tables["sequences"]),
    }


def row_statistics(tables: Mapping[str, TableView]) -> dict[str, Any]:
    """Where rows went: input rows = good rows + the sum over the drop reasons, and so for each stage."""
    drops = {name: _drops(view) for name, view in tables.items()}
    last = [name for name in ORDER if name in tables][-1]
    stages = [_stage_rows(name, tables[name].rows, drops[name]) for name in ORDER if name in tables]
    return {
        "total": tables[last].rows,
        "good": tables[last].rows - sum(drops[last].values()),
        "stages": stages,
        "reasons": _reasons(drops[last]),
    }


def _drops(view: TableView) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for shard in view.shards(("reject_stage", "reject_reason")):
        bad = shard.filter(pc.is_valid(shard["reject_stage"]))
        reasons = (reason or "no reason given" for reason in bad["reject_reason"].to_pylist())
        counts.update(zip(bad["reject_stage"].to_pylist(), reasons, strict=True))
    return counts


def _stage_rows(name: str, rows: int, drops: Counter[tuple[str, str]]) -> dict[str, Any]:
    here = sum(count for (stage, _), count in drops.items() if stage == name)
    upstream = sum(drops.values()) - here
    return {"stage": name, "rows_in": rows, "upstream": upstream, "rejected": here, "rows_out": rows - upstream - here}


def _reasons(drops: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    ranked = sorted(drops.items(), key=lambda item: (-item[1], item[0]))
    listed = [{"stage": stage, "reason": reason, "rows": rows} for (stage, reason), rows in ranked[:SHOWN_REASONS]]
    rest = ranked[SHOWN_REASONS:]
    if rest:
        listed.append({"stage": "", "reason": f"{len(rest)} other reasons", "rows": sum(rows for _, rows in rest)})
    return listed


def _audio_statistics(view: TableView) -> dict[str, Any]:
    hours: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    synthetic: Counter[str] = Counter()
    judged: set[str] = set()
    utterances: Counter[str] = Counter()
    speakers: set[str] = set()
    recordings: set[str] = set()
    histogram = np.zeros(len(_DURATION_EDGES) - 1, dtype=np.int64)
    for shard in view.shards(_AUDIO):
        good = shard.filter(pc.is_null(shard["reject_stage"]))
        durations = np.asarray(good["duration"].fill_null(0.0), dtype=np.float64)
        histogram += np.histogram(durations, _DURATION_EDGES)[0]
        splits = good["split"].to_pylist()
        utterances.update(split or "none" for split in splits)
        for split, language, seconds in zip(splits, good["language"].to_pylist(), durations.tolist(), strict=True):
            hours[split or "none"] += seconds / 3600
            languages[language or "unknown"] += seconds / 3600
        made = np.asarray(pc.equal(good["origin"], "synthetic").fill_null(False), dtype=bool)
        for uri, seconds in zip(good["source_uri"].filter(made).to_pylist(), durations[made], strict=True):
            synthetic[engine_of(uri) or "files"] += seconds / 3600
        judged.update(good["origin"].filter(pc.equal(good["split"], "held_out")).to_pylist())
        speakers.update(good["speaker"].drop_null().to_pylist())
        recordings.update(good["recording_id"].to_pylist())
    return {
        "hours": round(sum(hours.values()), 4),
        "hours_by_split": _rounded(hours),
        "hours_by_language": _rounded(languages),
        "hours_synthetic": _rounded(synthetic),
        "held_out_synthetic": judged == {"synthetic"},
        "utterances": sum(utterances.values()),
        "utterances_by_split": dict(sorted(utterances.items())),
        "recordings": len(recordings),
        "speakers": len(speakers),
        "duration_edges": [edge for edge in _DURATION_EDGES if np.isfinite(edge)],
        "duration_counts": histogram.tolist(),
    }


def _licences(view: TableView, rights: Mapping[str, Rights]) -> dict[str, Any]:
    return {"hours_by_licence": hours_by_licence(_licensed(view, rights))} if rights else {}


def _licensed(view: TableView, rights: Mapping[str, Rights]) -> Iterator[tuple[str | None, float]]:
    """Licence and seconds of each good segment, a shard at a time."""
    for shard in view.shards(("recording_id", "duration", "reject_stage")):
        good = shard.filter(pc.is_null(shard["reject_stage"]))
        durations = np.asarray(good["duration"].fill_null(0.0), dtype=np.float64).tolist()
        for one, seconds in zip(good["recording_id"].to_pylist(), durations, strict=True):
            yield rights.get(one, NOTHING).licence, seconds


def _rounded(values: Counter[str]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in sorted(values.items())}


def _word_statistics(view: TableView) -> dict[str, Any]:
    words = interpolated = 0
    scores: list[float] = []
    types: set[str] = set()
    origins: Counter[str] = Counter()
    for shard in view.shards(("words", "text_origin", "reject_stage")):
        good = shard.filter(pc.is_null(shard["reject_stage"]))
        origins.update(origin or "none" for origin in good["text_origin"].to_pylist())
        flat = pc.list_flatten(good["words"].combine_chunks())
        words += len(flat)
        if not len(flat):
            continue
        interpolated += pc.sum(pc.struct_field(flat, "interpolated")).as_py() or 0
        scores.append(pc.sum(pc.struct_field(flat, "score")).as_py() or 0.0)
        types.update(word.lower() for word in pc.unique(pc.struct_field(flat, "word")).drop_null().to_pylist())
    timed = words - interpolated
    return {
        "words": words,
        "distinct": len(types),
        "interpolated": interpolated,
        "interpolated_share": round(interpolated / words, 6) if words else 0.0,
        "mean_score": round(sum(scores) / timed, 4) if timed else None,
        "utterances_by_origin": dict(sorted(origins.items())),
    }


def _lists(view: TableView, column: str) -> Iterator[pa.Array]:
    for shard in view.shards((column, "reject_stage")):
        yield shard.filter(pc.is_null(shard["reject_stage"]))[column].combine_chunks().drop_null()


def unit_statistics(lists: Iterator[pa.Array], size: int) -> dict[str, Any]:
    """Use of one stream's `size` classes.

    `perplexity` is two to the entropy of the frequencies: the number of classes that would be as uncertain if
    all were equally frequent. `repeats` is the share of frames equal to the frame before them in the utterance.
    """
    counts = np.zeros(size, dtype=np.int64)
    repeats = followers = 0
    for array in lists:
        flat, lengths = np.asarray(array.flatten(), dtype=np.int64), np.asarray(pc.list_value_length(array))
        counts += np.bincount(flat, minlength=size)
        first = np.zeros(len(flat), dtype=bool)
        first[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
        repeats += int(np.count_nonzero((flat[1:] == flat[:-1]) & ~first[1:]))
        followers += len(flat) - int(first.sum())
    share = counts[counts > 0] / max(counts.sum(), 1)
    return {
        "frames": int(counts.sum()),
        "classes": size,
        "used": int(np.count_nonzero(counts)),
        "perplexity": round(float(2 ** -(share * np.log2(share)).sum()), 3) if len(share) else 0.0,
        "repeats": round(repeats / followers, 6) if followers else 0.0,
        "counts": counts.tolist(),
    }


def _token_statistics(view: TableView) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    seconds = 0.0
    for shard in view.shards(("text_ids", "speech_ids", "split", "speech_only", "duration", "reject_stage")):
        good = shard.filter(pc.is_null(shard["reject_stage"]))
        held_out = pc.fill_null(pc.equal(good["split"], "held_out"), fill_value=False)
        for kind in ("text", "speech"):
            lengths = pc.fill_null(pc.list_value_length(good[f"{kind}_ids"]), 0)
            counts[f"{kind}_held_out"] += pc.sum(pc.if_else(held_out, lengths, 0)).as_py() or 0
            counts[f"{kind}"] += pc.sum(lengths).as_py() or 0
        counts["speech_only_utterances"] += pc.sum(good["speech_only"]).as_py() or 0
        seconds += pc.sum(good["duration"]).as_py() or 0.0
    rate = round(counts["speech"] / seconds, 3) if seconds else 0.0
    names = ("text", "speech", "text_held_out", "speech_held_out", "speech_only_utterances")
    return {**{name: counts[name] for name in names}, "speech_per_second": rate}
