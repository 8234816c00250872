"""The table stages of fine-tuning: `task_units` (speech tokens of rows), `task_examples` (solved examples as ids)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, cast

import pyarrow as pa

from spiritlm_core.config import FrozenConfig
from spiritlm_core.errors import ModelReferenceError, Rejection, SpiritLMError
from spiritlm_core.files import read_json
from spiritlm_core.finetune.config import ExamplesConfig
from spiritlm_core.finetune.rows import Spoken, TaskRow, speak, split_of
from spiritlm_core.finetune.template import Part, first_kind
from spiritlm_core.lake.schema import REJECT, Row, is_rejected, rejected, table_of
from spiritlm_core.lake.stage import Resources, TableInput, TableStage
from spiritlm_core.lm.generate.formats import PromptFormat, WordFormat
from spiritlm_core.lm.generate.prompts import Example, Kind, Parts, joined, known_streams
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from spiritlm_core.tokens.hf import load_vocabulary
from spiritlm_core.tokens.text import TextTokenizer
from spiritlm_core.tokens.vocabulary import VOCABULARY_FILE


def fill(
    question: Sequence[Part],
    answer: Sequence[Part],
    texts: Mapping[str, str],
    speech: Mapping[str, str],
) -> Example:
    """Put a row into the parts of a template: `texts` and `speech` (tokens) by field.

    Raises Rejection: the row has nothing for a field, or no answer at all.
    """
    example = Example(_filled(question, texts, speech), _filled(answer, texts, speech))
    if not example.answer:
        raise Rejection("no answer: every part of it is empty")
    return example


def _filled(parts: Sequence[Part], texts: Mapping[str, str], speech: Mapping[str, str]) -> Parts:
    found: list[tuple[Kind, str]] = []
    for part in parts:
        values = speech if part.kind == "speech" else texts
        if empty := [field for field in part.fields if not values.get(field, "").strip()]:
            if part.optional:
                continue
            raise Rejection(f"nothing in {empty[0]}")
        found.append((part.kind, values[part.speech] if part.speech else str(part.text).format_map(values)))
    return joined(found)


def encode(layout: PromptFormat, example: Example, kind: Kind | None) -> tuple[list[int], list[int]]:
    """The token ids of an example's prompt, which ends with the marker that the answer follows, and of its answer.

    `kind` is the modality that every answer begins with; None if the row says it, whose marker then belongs to the
    answer. The prompt begins with BOS and the answer ends with EOS, if the model has them.

    Raises Rejection: a token reaches from the question into the answer, or a speech token is none of the model's.
    """
    try:
        prompt = layout.prompt(example.question, kind or "any")
        whole = layout.prompt(joined([*example.question, *example.answer]), "any")
    except SpiritLMError as problem:
        raise Rejection(str(problem)) from problem
    if whole[: len(prompt)] != prompt:
        raise Rejection("a token of the text tokenizer reaches from the question into the answer")
    eos = layout.vocabulary.eos
    return prompt, whole[len(prompt) :] + ([] if eos is None else [eos])


def context_of(base: Path) -> int | None:
    """The longest sequence that a model takes, in tokens, as its ``config.json`` says; None if it says nothing."""
    path = base / "config.json"
    values = read_json(path) if path.is_file() else {}
    return values.get("max_position_embeddings", values.get("n_positions"))


def load_layout(base: Path) -> WordFormat:
    """The prompt format of a model of this project, without its weights. Raises ModelReferenceError: `base` is none."""
    if not (base / VOCABULARY_FILE).is_file():
        raise ModelReferenceError(
            f"{base} has no {VOCABULARY_FILE}: fine-tuning starts from a model that was trained here; "
            "to teach speech to a text model, name it as lm.base of a recipe for `spiritlm run`"
        )
    return WordFormat(TextTokenizer.load(base), load_vocabulary(base))


_VALUE = pa.struct([pa.field("field", pa.string()), pa.field("value", pa.string())])

TASK_UNITS = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("source_place", pa.int64()),  # line or row in its file, from 1
        pa.field("split", pa.string()),  # where the data says it
        pa.field("duration", pa.float64()),  # seconds of all recordings
        pa.field("texts", pa.list_(_VALUE)),
        pa.field("speech", pa.list_(_VALUE)),  # speech tokens, [St3][Pi1][Hu7]
        *REJECT,
    ]
)

TASK_EXAMPLES = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("split", pa.string()),  # "train" or "held_out"
        pa.field("prompt_ids", pa.list_(pa.int32())),
        pa.field("answer_ids", pa.list_(pa.int32())),  # EOS included, if the model has one
        pa.field("answer_kind", pa.string()),  # "text", "speech" or "interleaved"
        pa.field("answer_text", pa.string()),
        pa.field("answer_speech", pa.string()),
        *REJECT,
    ]
)


class TaskUnitsStage(TableStage):
    """``rows`` (rows of :data:`spiritlm_core.finetune.rows.TASK_ROWS`) to ``task_units``.

    Model role: ``speech_tokenizer``, which rows without recordings can do without.
    """

    name: ClassVar[str] = "task_units"
    about: ClassVar[str] = "speech tokens of the data set"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (TableInput("rows"),)
    schema: ClassVar[pa.Schema] = TASK_UNITS
    resources: ClassVar[Resources] = Resources(num_cpus=1.0)
    config: FrozenConfig
    _tokenizer: SpeechTokenizer | None = None

    def process(self, *tables: pa.Table) -> pa.Table:
        """One output row per row of the data; one that cannot be used is rejected.

        Raises ModelReferenceError: there are recordings and no speech tokenizer.
        """
        rows = [TaskRow(**values) for values in tables[0].to_pylist()]
        return table_of([self._row(*pair) for pair in zip(rows, speak(rows, self._load), strict=True)], TASK_UNITS)

    def _load(self) -> SpeechTokenizer:
        if "speech_tokenizer" not in self.models:
            raise ModelReferenceError(
                "the data has recordings, and there is no speech_tokenizer/ beside the base model: "
                "name one as speech_tokenizer of the recipe, or give speech tokens in place of recordings"
            )
        if self._tokenizer is None:
            self._tokenizer = SpeechTokenizer.from_pretrained(self.models["speech_tokenizer"])
        return self._tokenizer

    def _row(self, row: TaskRow, spoken: Spoken) -> Row:
        base: Row = {
            "example_id": row.key[:20],
            "source_uri": row.source_uri,
            "source_place": row.place,
            "split": row.split,
        }
        if spoken.error is not None:
            return rejected(base, self.name, spoken.error)
        texts, speech = (_values(found) for found in (row.text_fields(), spoken.tokens))
        return {**base, "duration": round(spoken.seconds, 6), "texts": texts, "speech": speech}


def _values(found: dict[str, str]) -> list[dict[str, str]]:
    return [{"field": field, "value": value} for field, value in sorted(found.items())]


class TaskExamplesStage(TableStage):
    """``task_units`` to ``task_examples``. Model role: ``base``, whose tokenizer and vocabulary are taken."""

    name: ClassVar[str] = "task_examples"
    about: ClassVar[str] = "questions and answers as tokens"
    version: ClassVar[int] = 2
    inputs: ClassVar[tuple[TableInput, ...]] = (TableInput("task_units"),)
    schema: ClassVar[pa.Schema] = TASK_EXAMPLES
    config: ExamplesConfig
    _layout: WordFormat

    def setup(self) -> None:
        """Load the tokenizer of the base model."""
        self._layout = load_layout(self.models["base"])

    def process(self, *tables: pa.Table) -> pa.Table:
        """One example per row, in the same order; one that the base model cannot be taught is rejected."""
        return table_of([self._example(row) for row in tables[0].to_pylist()], TASK_EXAMPLES)

    def _example(self, row: Row) -> Row:
        identity = str(row["example_id"])
        base: Row = {name: row[name] for name in ("example_id", "reject_stage", "reject_reason")}
        base["split"] = split_of(identity, cast("str | None", row["split"]), self.config.split)
        return base if is_rejected(row) else self.tried(base, lambda: self._encoded(row))

    def _encoded(self, row: Row) -> Row:
        columns = (cast("list[dict[str, str]]", row[name]) for name in ("texts", "speech"))
        texts, tokens = ({item["field"]: item["value"] for item in column} for column in columns)
        speech = {field: known_streams(value, self._layout.vocabulary) for field, value in tokens.items()}
        example = fill(self.config.question, self.config.answer, texts, speech)
        if self.config.labels is not None and example.text not in self.config.labels:
            raise Rejection(f"answer {example.text!r} is none of the labels {', '.join(self.config.labels)}"[:300])
        try:
            prompt, answer = encode(self._layout, example, first_kind(self.config.answer))
        except Rejection as problem:
            raise Rejection(f"{problem}: row {row['source_place']}") from problem
        if (length := len(prompt) + len(answer)) > self.config.context_length:
            raise Rejection(f"too long: {length} tokens, tokens.context_length is {self.config.context_length}")
        kinds = {kind for kind, _ in example.answer}
        return {
            "prompt_ids": prompt,
            "answer_ids": answer,
            "answer_kind": kinds.pop() if len(kinds) == 1 else "interleaved",
            "answer_text": example.text,
            "answer_speech": example.speech,
        }
