"""Training documents as people can read them: markers, words, and which word each speech token belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spiritlm_core.lake.view import TableView
from spiritlm_core.tokens.corpus import STREAMS, pieces_of
from spiritlm_core.tokens.documents import Plan
from spiritlm_core.tokens.finished import FinishedCorpus
from spiritlm_core.tokens.pairs import LABEL, SPEECH
from spiritlm_core.tokens.stage import COPIES, encodings
from spiritlm_core.tokens.text import TextTokenizer
from spiritlm_core.tokens.texts import DOCUMENTS
from spiritlm_core.tokens.vocabulary import SPEECH_MARKER, TEXT_MARKER, Vocabulary

_COLUMNS = ("utterance_id", "words", "text_offsets", "speech_offsets", "speech_ids", "can_switch")
Paint = Callable[[str, str], str]
"""Text and what it is ("head", "marker", "word", "speech", "note") to the text as it is shown."""


@dataclass(frozen=True)
class Word:
    """A word and its tokens in the modality of its span; "…" goes on with a word that was cut."""

    word: str
    tokens: str | None
    ids: list[int]


@dataclass(frozen=True)
class Span:
    """A stretch of one modality, "text" or "speech". A text document has no words but its text."""

    modality: str
    text: str
    words: list[Word]
    ids: list[int]


@dataclass(frozen=True)
class Preview:
    """One training document."""

    stream: str  # one of `STREAMS`
    document: str  # recording_id, or document_id of a text document
    utterances: list[str]  # segments that it covers; those of other recordings, too, where it holds several examples
    tokens: int  # all ids, markers included
    ends: bool  # whether the recording or text ends here; else it was cut at the context length
    spans: list[Span]  # in order, each behind its marker
    ids: list[int]  # the ids as they are trained on
    copy: int = 0  # which copy of the recording its speech is of (`units.copies`); 0: as it is

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def previews(
    corpus: FinishedCorpus, *, stream: str | None, count: int, split: str = "train", seed: int = 0, epoch: int = 0
) -> Iterator[Preview]:
    """At most `count` documents as training with this seed (`lm.seed`) draws them from this epoch on.

    They are of one stream, or of all as they are mixed if `stream` is None.

    Raises SpiritLMError: the stream has no documents in this split.
    """
    shares = None if stream is None else {name: float(name == stream) for name in STREAMS}
    mixture = corpus.mixture(seed=seed, split=split, epoch=epoch, shares=shares)
    plans: list[Plan] = []
    while len(plans) < count and not mixture.has_shown(epoch + 1):
        plans += mixture.draw()
    del plans[count:]
    yield from _Reader(corpus, plans).read(plans)


class _Reader:
    """Puts the words back to the tokens; the corpus in memory has none."""

    def __init__(self, corpus: FinishedCorpus, plans: Sequence[Plan]) -> None:
        self._vocabulary, self._tokenizer = corpus.vocabulary, TextTokenizer.load(corpus.tokenizer)
        wanted = {utterance for plan in plans for utterance in self._utterances(plan)}
        self._words = _words_of(corpus.sequences, wanted, corpus.config.context_length)

    def read(self, plans: Sequence[Plan]) -> Iterator[Preview]:
        for plan in plans:
            document = plan.document()
            spans = self._text(document.ids) if plan.stream == DOCUMENTS else self._spans(plan)
            ids = document.ids.tolist()
            about = (document.stream, document.key, self._utterances(plan), len(ids), plan.ends)
            yield Preview(*about, spans, ids, plan.planner.copy)

    def _utterances(self, plan: Plan) -> list[str]:
        if plan.stream == DOCUMENTS:
            return []
        corpus = plan.planner.corpus
        words = [(first, last - 1) for kind, first, last in plan.spans if kind != LABEL]
        covered = ((corpus.segment(first), corpus.segment(last)) for first, last in words)
        numbers = dict.fromkeys(number for first, last in covered for number in range(first, last + 1))
        return corpus.utterances.take(list(numbers)).to_pylist()

    def _text(self, ids: np.ndarray) -> list[Span]:
        body = ids[ids < self._vocabulary.text_size].tolist()
        ends = {self._vocabulary.bos, self._vocabulary.eos}
        body = body[body[0] in ends : len(body) - (body[-1] in ends)]
        return [Span("text", self._tokenizer.decode(body), [], body)]

    def _spans(self, plan: Plan) -> list[Span]:
        spans = []
        labels = plan.planner.corpus.labels
        for kind, first, last in plan.spans:
            speech = kind == SPEECH
            words = [] if kind == LABEL else [self._word(plan, place, speech) for place in range(first, last)]
            ids = labels.of(first, last) if kind == LABEL else [i for word in words for i in word.ids]
            text = names(ids, self._vocabulary) if speech else self._tokenizer.decode(ids)
            spans.append(Span("speech" if speech else "text", text, words, ids))
        return spans

    def _word(self, plan: Plan, place: int, speech: bool) -> Word:
        corpus = plan.planner.corpus
        segment = corpus.segment(place)
        name = corpus.utterances[segment].as_py()
        words = self._words.get((plan.planner.copy, name), self._words[0, name])  # a row without copies
        word = words[place - int(corpus.segments[segment])]
        tokens = corpus.speech if speech else corpus.text
        ids = tokens.of(place, place + 1)
        return Word(word, names(ids, self._vocabulary) if speech else None, ids)


def _words_of(sequences: TableView, utterances: set[str], context_length: int) -> dict[tuple[int, str], list[str]]:
    """The words of rows by copy and name, one for each of the corpus: "…" stands for later pieces of a long one."""
    found = {}
    columns = (*_COLUMNS, COPIES.name) if COPIES.name in sequences.columns() else _COLUMNS
    chosen = pa.array(sorted(utterances), pa.string())
    for shard in sequences.shards(columns):
        for copy, rows in enumerate(encodings(shard.filter(pc.is_in(shard["utterance_id"], chosen)))):
            for row in rows.to_pylist():
                text, speech = (np.diff(row[f"{name}_offsets"]) for name in ("text", "speech"))
                pieces = pieces_of(text, speech, context_length).tolist()
                pairs = zip(row["words"], pieces, strict=True)
                found[copy, row["utterance_id"]] = [name for word, n in pairs for name in (word, *["…"] * (n - 1))]
    return found


def names(ids: Sequence[int], vocabulary: Vocabulary) -> str:
    """Speech tokens such as ``[St3][Hu7]``."""
    return "".join([vocabulary.tokens[i - vocabulary.text_size] for i in ids])


def lines(preview: Preview, number: int, width: int, paint: Paint) -> Iterator[str]:
    """A preview for a terminal of so many columns; 0 shows every token."""
    speech, text = (sum(len(s.ids) for s in preview.spans if s.modality == kind) for kind in ("speech", "text"))
    kind = "recording" if preview.utterances else "document"
    more = f"{len(preview.spans)} spans, {text} text and {speech} speech tokens, {preview.tokens} in all"
    end = f"; copy {preview.copy}" if preview.copy else ""
    end += "" if preview.ends else f"; the {kind} goes on"
    yield paint(f"{number}. {preview.stream}, {kind} {preview.document}: {more}{end}", "head")
    for span in preview.spans:
        marker = SPEECH_MARKER if span.modality == "speech" else TEXT_MARKER
        if span.modality == "text":
            yield f"{paint(marker, 'marker')} {paint(_short(span.text.strip(), width - len(marker) - 1), 'word')}"
            continue
        yield paint(marker, "marker")
        yield from _speech(span, width, paint)
    for utterance in preview.utterances:
        yield paint(f"  {utterance}", "note")


def _speech(span: Span, width: int, paint: Paint) -> Iterator[str]:
    """One line for each word with its speech tokens and their number."""
    column = min(max((len(word.word) for word in span.words), default=0), 16)
    for word in span.words:
        tokens = _short(word.tokens or "", width - column - 10) if width else word.tokens or ""
        yield f"  {paint(word.word.ljust(column), 'word')} {len(word.ids):>4}  {paint(tokens, 'speech')}"


def _short(text: str, width: int) -> str:
    """At most `width` columns of a text, cut where a token or a word ends; everything if `width` is not positive."""
    if width <= 0 or len(text) <= width:
        return text
    end = max(text.rfind("]", 0, width - 1) + 1, text.rfind(" ", 0, width - 1))
    return f"{text[: end if end > 0 else width - 1]}…"
