"""What the corpus is made of, counted from its tables shard by shard."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spiritlm_core.intake.rights import NOTHING, UNKNOWN, Rights
from spiritlm_core.intake.speak.utterance import engine_of
from spiritlm_core.lake.schema import SYNTHETIC
from spiritlm_core.lake.view import TableView

Row = dict[str, Any]
ORDER = ("audio", "words", "units", "sequences")  # the stages in the order in which a row can be given up
SHOWN_REASONS = 20  # distinct reasons listed by name; the rest are added up in one line, so that the sum still holds
_RECORDING = ("recording_id", "speaker", "language", "split", "origin", "source_uri")  # what its segments share
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
        "audio": _audio_statistics(tables["audio"], rights or {}),
        "words": _word_statistics(tables["words"]),
        "units": {
            name: unit_statistics(
                (good[name].combine_chunks().drop_null() for good in tables["units"].good((name,))), size
            )
            for name, size in unit_sizes.items()
            if size
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


def _audio_statistics(view: TableView, rights: Mapping[str, Rights]) -> dict[str, Any]:
    histogram = np.zeros(len(_DURATION_EDGES) - 1, dtype=np.int64)
    parts = []
    for good in view.good((*_RECORDING, "duration")):
        histogram += np.histogram(good["duration"].fill_null(0.0), _DURATION_EDGES)[0]
        parts.append(good.group_by(list(_RECORDING)).aggregate([("duration", "sum"), ([], "count_all")]))
    rows = [{**row, "hours": (row["duration_sum"] or 0.0) / 3600} for row in pa.concat_tables(parts).to_pylist()]
    made = [row for row in rows if row["origin"] == SYNTHETIC]
    licensed = _summed(rows, lambda row: rights.get(row["recording_id"], NOTHING).licence or UNKNOWN)
    return {
        "hours": round(sum(row["hours"] for row in rows), 4),
        "hours_by_split": _summed(rows, lambda row: row["split"] or "none"),
        "hours_by_language": _summed(rows, lambda row: row["language"] or "unknown"),
        "hours_synthetic": _summed(made, lambda row: engine_of(row["source_uri"]) or "files"),
        "held_out_synthetic": {row["origin"] for row in rows if row["split"] == "held_out"} == {SYNTHETIC},
        "utterances": sum(row["count_all"] for row in rows),
        "utterances_by_split": _summed(rows, lambda row: row["split"] or "none", "count_all"),
        "recordings": len({row["recording_id"] for row in rows}),
        "speakers": len({row["speaker"] for row in rows} - {None}),
        "duration_edges": [edge for edge in _DURATION_EDGES if np.isfinite(edge)],
        "duration_counts": histogram.tolist(),
        **({"hours_by_licence": licensed} if rights else {}),
    }


def _summed(rows: Iterable[Row], name: Callable[[Row], str], what: str = "hours") -> dict[str, Any]:
    """Hours (or another column) by name."""
    sums: Counter[str] = Counter()
    for row in rows:
        sums[name(row)] += row[what]
    return {name: round(value, 4) for name, value in sorted(sums.items())}


def _word_statistics(view: TableView) -> dict[str, Any]:
    words = interpolated = 0
    scores: list[float] = []
    types: set[str] = set()
    origins: Counter[str] = Counter()
    for good in view.good(("words", "text_origin")):
        origins.update(origin or "none" for origin in good["text_origin"].to_pylist())
        flat = pc.list_flatten(good["words"].combine_chunks())
        words += len(flat)
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
    names = ("text", "speech", "text_held_out", "speech_held_out", "speech_only_utterances")
    counts, seconds = dict.fromkeys(names, 0), 0.0
    for good in view.good(("text_ids", "speech_ids", "split", "speech_only", "duration")):
        held_out = pc.fill_null(pc.equal(good["split"], "held_out"), fill_value=False)
        for kind in ("text", "speech"):
            lengths = pc.fill_null(pc.list_value_length(good[f"{kind}_ids"]), 0)
            counts[kind] += pc.sum(lengths).as_py() or 0
            counts[f"{kind}_held_out"] += pc.sum(lengths.filter(held_out)).as_py() or 0
        counts["speech_only_utterances"] += pc.sum(good["speech_only"]).as_py() or 0
        seconds += pc.sum(good["duration"]).as_py() or 0.0
    return {**counts, "speech_per_second": round(counts["speech"] / seconds, 3) if seconds else 0.0}
