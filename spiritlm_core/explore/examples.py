"""Training examples as a recipe mixes them, as HTML."""

from dataclasses import replace
from html import escape

from spiritlm_core.lake.lake import Lake
from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.finished import FinishedCorpus
from spiritlm_core.tokens.preview import lines, previews

MOST_ROWS = 20_000
"""Rows of a table that examples are drawn from: training holds the tokens of all rows in memory, a page must not."""

_COLUMNS = 120


def examples(lake: Lake, recipe: str, stream: str | None, *, count: int, epoch: int) -> str:
    """The first documents of an epoch, of one stream or, if `stream` is None, in the shares of the mix.

    Raises SpiritLMError: there is no corpus, or the stream has no documents.
    """
    whole = FinishedCorpus.as_trained(lake, recipe)
    text = None if whole.text is None else _head(whole.text)
    corpus = replace(whole, sequences=_head(whole.sequences), text=text)
    drawn = previews(corpus, stream=stream, count=count, epoch=epoch)
    shown = ["\n".join(lines(document, number, _COLUMNS, _paint)) for number, document in enumerate(drawn, 1)]
    part = len(corpus.sequences) < len(whole.sequences)
    note = f"<p>Drawn from the first {corpus.sequences.rows:,} of {whole.sequences.rows:,} rows.</p>" if part else ""
    return note + "".join(f'<pre class="example">{one}</pre>' for one in shown)


def _head(view: TableView) -> TableView:
    """The first shards, as many as have about `MOST_ROWS` rows: all shards count as equally long."""
    count = max(1, len(view) * MOST_ROWS // max(view.rows, 1))
    return view if count >= len(view) else TableView(view.loaders[:count], view.rows * count // len(view))


def _paint(text: str, kind: str) -> str:
    return f'<span class="{kind}">{escape(text)}</span>'
