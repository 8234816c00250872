"""Answers as HTML and as cells. Whatever comes out of a lake is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from spiritlm_core.evaluate import plots
from spiritlm_core.evaluate.rendering import data_uri
from spiritlm_core.explore.compare import Difference
from spiritlm_core.explore.rows import Histogram, Rows
from spiritlm_core.explore.segment import Segment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST = 60


def cell(value: Any) -> str:
    """A value of a row in a few letters."""
    if value is None:
        return ""
    text = _number(value) if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _number(value: float) -> str:
    """Three digits after the point; what is too small for them, such as an offset, with two that say something."""
    return f"{value + 0.0:.2g}" if abs(value) < 0.01 else f"{value:.3f}".rstrip("0").rstrip(".")


def summary(rows: Rows) -> str:
    """How many rows a snapshot has, and what became of them."""
    totals = rows.totals
    parts = [f"<b>{len(rows):,}</b> rows in {len(rows.keys):,} shards", f"{totals.rows_out:,} good"]
    parts += [f"{totals.rejected:,} rejected here"] if totals.rejected else []
    parts += [f"{totals.upstream:,} before"] if totals.upstream else []
    parts += [f"{totals.audio_seconds / 3600:.2f} hours"] if totals.audio_seconds else []
    parts += [f"{rows.hidden:,} rows of forgotten recordings are not shown"] if rows.hidden else []
    return f"<p>{' · '.join(parts)}</p>"


def picture(figure: Figure | None) -> str:
    """A figure, which is scrolled where it is wider than the page."""
    if figure is None:
        return ""
    return f'<div class="wide"><img alt="" src="{data_uri(plots.png(figure), "image/png")}"></div>'


def histogram(found: Histogram) -> str:
    """How the values of a column are spread."""
    if not found.counts:
        return "<p>No row has a value here.</p>"
    if found.edges:
        return picture(plots.spread(found.column, found.edges, found.counts))
    return picture(plots.shares(found.column, dict(zip(found.values, found.counts, strict=True))))


def heading(segment: Segment) -> str:
    """Its transcript and name, and why it was given up if it was."""
    rows = segment.rows.values()
    texts = (row.get("text") for row in rows)
    given_up = {f"{row['reject_stage']}: {row['reject_reason']}" for row in rows if row.get("reject_stage")}
    lines = [
        f"<h3>{escape(next(filter(None, texts), '(no transcript)'))}</h3>",
        f"<p>{escape(segment.utterance_id)}</p>",
    ]
    return "".join([*lines, *(f'<p class="rejected">{escape(one)}</p>' for one in sorted(given_up))])


def facts(segment: Segment) -> str:
    """All other columns of its rows."""
    return table(("table", "column", "value"), segment.facts())


def difference(found: Difference) -> str:
    """Counts and reasons of two snapshots beside each other, and how many rows differ how."""
    pairs = [
        (what, *(f"{n:,.2f}" if isinstance(n, float) else f"{n:,}" for n in two)) for what, two in found.counts.items()
    ]
    pairs += [(f"rejected: {reason}", f"{a:,}", f"{b:,}") for reason, (a, b) in found.reasons.items()]
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.kinds.items()) or "no row differs"
    return table(("", "earlier", "later"), pairs) + f"<p><b>{kinds}</b></p>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    lines = [
        "".join(f"<{tag}>{escape(text)}</{tag}>" for text in row)
        for tag, row in [("th", head), *(("td", r) for r in rows)]
    ]
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'
