"""What happens on the page: each method takes what is on it, and gives what is then on it."""

import re
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from spiritlm_core.audio.codec import encode_wav
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.explore import shown
from spiritlm_core.explore.catalogue import Catalogue, Listed
from spiritlm_core.explore.compare import compare
from spiritlm_core.explore.examples import examples
from spiritlm_core.explore.rows import Place, Rows
from spiritlm_core.explore.segment import Segment, load_vocoder
from spiritlm_core.lake.lake import Lake
from spiritlm_core.serve.display import HIDDEN, sentence, visible
from spiritlm_core.serve.guard import Kept

ROWS = 50
KINDS = {"all": "", "good": "reject_stage is empty", "rejected": "reject_stage is not empty"}
_NUMBER = "#"
_IDS = re.compile(r"\b[0-9a-f]{20}-\d+-\d+\b")  # the names of utterances, wherever a row has one


@dataclass(frozen=True)
class Seen:
    """What somebody looks at.

    Attributes:
        start: number of the first row that is listed.
        places: where the listed rows lie.
        table, place: of the row that is shown, if one is.
    """

    start: int = 0
    places: list[Place] = field(default_factory=list)
    title: str = ""
    place: Place | None = None


class Actions:
    """What the page does with a lake."""

    def __init__(self, lake: Lake, kept: Kept) -> None:
        self.lake, self.kept, self.catalogue = lake, kept, Catalogue(lake)
        self._vocoders: dict[str, Any] = {}

    def loaded(self, title: str | None) -> list[Any]:
        """The page as it is first seen: the tables that the lake has now, and the rows of one."""
        titles = list(self._said(self.catalogue.listed))
        chosen = title if title in titles else titles[0]
        return [gr.update(choices=titles, value=chosen), *self.opened(str(chosen))]

    def opened(self, title: str) -> list[Any]:
        """A table: what it holds, its columns wherever one is chosen, other snapshots of it, and its first rows."""
        return [*self.about(title), "", "all", "", *self.listed(title, "all", "", "", down=False)]

    def about(self, title: str) -> list[Any]:
        """What a table holds, its columns wherever one is chosen, and the other snapshots of it."""
        one, rows = self._rows(title)
        names = list(rows.columns)
        measured = next((n for n in ("duration", *names) if n in names and rows.columns[n].numeric), names[0])
        others = [name for name, other in self.catalogue.listed().items() if other.table == one.table and name != title]
        return [
            shown.summary(rows),
            gr.update(choices=["", *names], value=""),
            gr.update(choices=names, value=names[0]),
            gr.update(choices=names, value=measured),
            gr.update(choices=others, value=others[0] if others else None),
            self.reasons(title),
        ]

    def listed(self, title: str, kind: str, conditions: str, sort: str, down: bool, start: int = 0) -> list[Any]:
        """Some rows of a table from `start` on, and where among all that fulfil the conditions they are."""
        _, rows = self._rows(title)
        asked = _asked(kind, conditions)
        start = max(0, start)
        places, values = self._said(rows.page, asked, sort or None, down=down, start=start, count=ROWS)
        self.catalogue.gather(rows)  # for the next questions
        ends = 0 < len(values) < ROWS or not start + len(values)
        count = start + len(values) if ends else rows.count(asked)
        if count and not values:  # behind the last page
            return self.listed(title, kind, conditions, sort, down, (count - 1) // ROWS * ROWS)
        cells = [[str(start + i), *map(shown.cell, row)] for i, row in enumerate(values, 1)]
        where = f"{start + 1:,} to {start + len(cells):,} of {count:,} rows" if count else "no such row"
        return [Seen(start, places), where, {"headers": [_NUMBER, *rows.columns], "data": cells}]

    def moved(self, by: int, seen: Seen, title: str, kind: str, conditions: str, sort: str, down: bool) -> list[Any]:
        """The rows before or behind those that are listed."""
        return self.listed(title, kind, conditions, sort, down, seen.start + by * ROWS)

    def added(self, conditions: str, column: str, comparison: str, value: str) -> str:
        """The conditions and one more, whose value stands in quotes where it would be read as more than a value."""
        if re.search(r"^\s*[<>=~]|\sand\s", value, re.IGNORECASE):
            value = f"'{value}'" if '"' in value else f'"{value}"'
        return " and ".join(filter(None, (conditions.strip(), f"{column} {comparison} {value}".strip())))

    def histogram(self, title: str, kind: str, conditions: str, column: str) -> str:
        """How a column is spread over the rows that are listed and all others like them."""
        _, rows = self._rows(title)
        asked = _asked(kind, conditions)
        return shown.histogram(self._said(rows.histogram, column, asked))

    def picked(self, seen: Seen, title: str, event: gr.SelectData) -> list[Any]:
        """Show the row that was clicked."""
        place = seen.places[int(event.row_value[0]) - seen.start - 1]
        one, tables, segment = self._segment(title, place)
        named = self._named(tables, segment, self._recipe(one))
        return [
            Seen(seen.start, seen.places, title, place),
            *self._shown(segment, "segment"),
            gr.update(value=None, visible=HIDDEN),
            gr.update(visible=visible("hubert" in segment.units)),
            shown.facts(segment),
            *(self._shown(named, "kept") if named else ["", gr.update(value=None, visible=HIDDEN), ""]),
        ]

    def _shown(self, segment: Segment, name: str) -> list[Any]:
        sound = None if segment.waveform is None else str(self.kept.add(f"{name}.wav", encode_wav(segment.waveform)))
        return [
            shown.heading(segment),
            gr.update(value=sound, visible=visible(sound is not None)),
            shown.picture(segment.figure()),
        ]

    def _named(self, tables: dict[str, Rows], segment: Segment, recipe: str) -> Segment | None:
        """The utterance that is kept in the place of this one, or another one that its rows name."""
        texts = " ".join(
            str(value) for row in segment.rows.values() for value in row.values() if isinstance(value, str)
        )
        kept = self._said(self.catalogue.kept, recipe, segment.utterance_id)
        other = kept or next((name for name in _IDS.findall(texts) if name != segment.utterance_id), None)
        place = tables["audio"].find(other) if other and "audio" in tables else None
        return self._said(Segment.read, tables, "audio", place) if place else None

    def spoken(self, seen: Seen) -> Any:
        """The units of the row that is shown, made audible."""
        if seen.place is None:
            return gr.skip()
        one, _, segment = self._segment(seen.title, seen.place)
        vocoder = self._vocoder(self._recipe(one))
        if vocoder is None:
            raise gr.Error("The lake has no vocoder of this recipe, so units cannot be heard.", print_exception=False)
        waveform = self._said(segment.resynthesis, vocoder)
        return gr.update(value=str(self.kept.add("units.wav", encode_wav(waveform))), visible=True)

    def reasons(self, title: str) -> dict[str, Any]:
        """Reasons of rejections in all tables of the recipe."""
        tables = self._said(self.catalogue.beside, self._rows(title)[0])
        found = [(name, why, n) for name, rows in tables.items() for why, n in rows.totals.reasons.items()]
        found.sort(key=lambda row: -row[2])
        return {"headers": ["stage", "reason", "rows"], "data": [[a, b, f"{n:,}"] for a, b, n in found]}

    def of_reason(self, title: str, event: gr.SelectData) -> list[Any]:
        """The rows of a reason that was clicked, in the table of the stage that gave it."""
        stage, reason, _ = event.row_value
        recipe, listed = self._recipe(self._rows(title)[0]), self.catalogue.listed().items()
        table = next((name for name, one in listed if one.table == stage and recipe in one.recipes), title)
        asked = f'reject_stage = {stage} and reject_reason ~ "{reason}"'
        rows = self.listed(table, "rejected", asked, "", down=False)
        return [table, *self.about(table), "", "rejected", asked, *rows, gr.Tabs(selected="rows")]

    def compared(self, title: str, other: str | None) -> list[Any]:
        """Another snapshot of the table beside the one that is chosen: the older is the earlier."""
        if not other:
            raise gr.Error("There is no other snapshot of this table in the lake.", print_exception=False)
        pair = sorted((self._rows(title), self._rows(other)), key=lambda pair: pair[0].written)
        found = self._said(compare, self.lake, pair[0][1], pair[1][1])
        rows = {"headers": ["what", "row", "rejected earlier", "rejected later"], "data": [list(r) for r in found.rows]}
        return [f"<p>From {pair[0][0].title} to {pair[1][0].title}</p>" + shown.difference(found), rows]

    def examples(self, title: str, stream: str, count: float, epoch: float) -> str:
        """Training examples of the recipe that uses the table."""
        recipe, chosen = self._recipe(self._rows(title)[0]), None if stream == "as mixed" else stream
        return str(self._said(examples, self.lake, recipe, chosen, count=int(count), epoch=int(epoch)))

    def _rows(self, title: str) -> tuple[Listed, Rows]:
        listed = self._said(self.catalogue.listed)
        if title not in listed:
            raise gr.Error("This snapshot is not in the lake any more.", print_exception=False)
        return listed[title], self._said(self.catalogue.rows, listed[title])

    def _segment(self, title: str, place: Place) -> tuple[Listed, dict[str, Rows], Segment]:
        """A listed table, those beside it, and what they say of one of its rows."""
        one, _ = self._rows(title)
        tables = self._said(self.catalogue.beside, one)
        return one, tables, self._said(Segment.read, tables, one.table, place)

    def _recipe(self, one: Listed) -> str:
        recipes = (*one.recipes, *(name for other in self.catalogue.listed().values() for name in other.recipes))
        return next(iter(recipes), "")

    def _vocoder(self, recipe: str) -> Any:
        if recipe not in self._vocoders:
            folders = {name: self._said(self.catalogue.model, recipe, name) for name in ("vocoder", "published")}
            self._vocoders[recipe] = self._said(load_vocoder, folders)
        return self._vocoders[recipe]

    def _said(self, work: Any, *given: Any, **named: Any) -> Any:
        """What `work` gives; what is wrong is said on the page in a sentence."""
        try:
            return work(*given, **named)
        except SpiritLMError as error:
            raise gr.Error(sentence(str(error)), print_exception=False, duration=10) from error


def _asked(kind: str, conditions: str) -> str:
    """The condition of a kind of rows, and those that were written."""
    return " and ".join(filter(None, (KINDS[kind], conditions.strip())))
