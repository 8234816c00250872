"""What is in one snapshot of a table and not, or not so, in another."""

from dataclasses import dataclass

from spiritlm_core.explore.duck import ask
from spiritlm_core.explore.rows import Rows
from spiritlm_core.lake.lake import Lake, shard_path

_SHOWN = 100


@dataclass(frozen=True)
class Difference:
    """From an earlier snapshot to a later one."""

    counts: dict[str, tuple[float, float]]  # what → how many there are earlier and later
    reasons: dict[str, tuple[int, int]]  # reason of a rejection → how many rows have it earlier and later
    kinds: dict[str, int]  # ``added``, ``removed``, ``rejected``, ``accepted``, ``changed`` → how many rows
    # kind, utterance_id, and why it is rejected earlier and later, of the first of them
    rows: list[tuple[str, str, str, str]]


def compare(lake: Lake, earlier: Rows, later: Rows) -> Difference:
    """Compare two snapshots of one table. A shard that both have is the same, so that only the others are read.

    Raises LakeError: a shard is missing or damaged.
    """
    pair = (earlier, later)
    counts = {
        "rows": (len(earlier), len(later)),
        "good rows": (earlier.totals.rows_out, later.totals.rows_out),
        "rejected here": (earlier.totals.rejected, later.totals.rejected),
        "rejected before": (earlier.totals.upstream, later.totals.upstream),
        "hours of good rows": (earlier.totals.audio_seconds / 3600, later.totals.audio_seconds / 3600),
        "shards": (len(earlier.keys), len(later.keys)),
    }
    names = sorted({reason for rows in pair for reason in rows.totals.reasons})
    reasons = {name: (earlier.totals.reasons.get(name, 0), later.totals.reasons.get(name, 0)) for name in names}
    both = set(earlier.keys) & set(later.keys)
    files = [[lake.store.child(shard_path(rows.table, key)) for key in rows.keys if key not in both] for rows in pair]
    kinds, rows = _rows(lake, earlier, later, *files)
    return Difference(counts, reasons, kinds, rows)


def _rows(
    lake: Lake, earlier: Rows, later: Rows, before: list[str], after: list[str]
) -> tuple[dict[str, int], list[tuple[str, str, str, str]]]:
    if not before and not after:
        return {}, []
    key = "document_id" if any("document_id" in rows.columns for rows in (earlier, later)) else "utterance_id"
    common = ", ".join(f'"{name}"' for name in earlier.columns if name in later.columns)
    side = f"SELECT {key}, reject_stage, reject_reason, hash({common}) AS v FROM"
    sides = (("a", before, earlier), ("b", after, later))
    first, second = (f"{side} {{{name}}} WHERE {bool(files)} AND {rows.shown}" for name, files, rows in sides)
    joined = (
        f"SELECT CASE WHEN a.{key} IS NULL THEN 'added' WHEN b.{key} IS NULL THEN 'removed' "
        "WHEN a.reject_stage IS NULL AND b.reject_stage IS NOT NULL THEN 'rejected' "
        "WHEN a.reject_stage IS NOT NULL AND b.reject_stage IS NULL THEN 'accepted' "
        f"WHEN a.v IS DISTINCT FROM b.v THEN 'changed' END AS kind, coalesce(a.{key}, b.{key}) AS name, "
        "coalesce(a.reject_reason, '') AS was, coalesce(b.reject_reason, '') AS is_now "
        f"FROM ({first}) a FULL JOIN ({second}) b ON a.{key} = b.{key}"
    )
    files = {"a": before or after, "b": after or before}
    chosen = f"FROM ({joined}) WHERE kind IS NOT NULL"
    counted = ask(lake.store, f"SELECT kind, count(*) {chosen} GROUP BY 1 ORDER BY 1", files)
    listed = ask(lake.store, f"SELECT kind, name, was, is_now {chosen} ORDER BY 1, 2 LIMIT {_SHOWN}", files)
    return dict(counted), [(kind, name, was, now) for kind, name, was, now in listed]
