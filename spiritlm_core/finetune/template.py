"""Templates: what a solved example looks like as parts of text and speech. Files, so that users can write their own.

The same template makes the examples of fine-tuning and the prompts of few-shot tasks.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Formatter
from typing import Self

from pydantic import Field, model_validator

from spiritlm_core.config import FrozenConfig, NamedConfig
from spiritlm_core.config_files import load_config_file
from spiritlm_core.errors import RecipeError
from spiritlm_core.lm.generate.prompts import Kind
from spiritlm_core.metrics.distances import Metric

FOLDER = Path(__file__).parent / "templates"


class Part(FrozenConfig):
    """A stretch of text or of speech; exactly one of `text` and `speech`."""

    text: str | None = Field(
        None, min_length=1, description="Text with {field} where a field of the data goes; {{ and }} are braces."
    )
    speech: str | None = Field(None, min_length=1, description="The field of the data with the recording.")
    optional: bool = Field(False, description="Left out where the data has nothing for it, instead of an error.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.text is None) == (self.speech is None):
            raise ValueError("a part has either `text` or `speech`")
        for _, name, spec, conversion in self._pieces():
            if name is not None and (not name.isidentifier() or spec or conversion):
                raise ValueError(f"{{{name}}} in {self.text!r} is not {{field}}: write a name of letters, digits and _")
        return self

    @property
    def kind(self) -> Kind:
        """Of which modality the part is."""
        return "text" if self.speech is None else "speech"

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the data that the part shows."""
        if self.speech is not None:
            return (self.speech,)
        return tuple(name for _, name, _, _ in self._pieces() if name is not None)

    def _pieces(self) -> list[tuple[str, str | None, str | None, str | None]]:
        return list(Formatter().parse(self.text or ""))

    def begins_fixed(self) -> bool:
        """Whether the part begins with the same word in every example."""
        pieces = self._pieces()
        return bool(pieces) and bool(pieces[0][0].strip())

    def ends_fixed(self) -> bool:
        """Whether the part ends with the same word in every example."""
        pieces = self._pieces()
        return bool(pieces) and pieces[-1][1] is None


class Template(NamedConfig):
    """A solved example: a question, which the model is given, and its answer, which it learns or has to find."""

    question: tuple[Part, ...] = Field(min_length=1, description="The parts of the question, in order.")
    answer: tuple[Part, ...] = Field(min_length=1, description="The parts of the answer, in order.")
    labels: tuple[str, ...] | None = Field(
        None, min_length=2, description="accuracy: the answers there are; null takes those of the train rows."
    )
    metric: Metric = Field("none", description="How answers are judged.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if all(part.optional for part in self.question):
            raise ValueError("question: at least one part must not be optional")
        for before, behind in _meetings(self.question, self.answer):
            if before.kind == behind.kind and not before.ends_fixed():
                raise ValueError(
                    f"nothing tells where the question ends and the answer begins, both are {before.kind}: "
                    'end the question with a fixed text such as {text: "Answer:"}'
                )
        for before, behind in _meetings(self.answer, self.question):
            if before.kind == behind.kind and not behind.begins_fixed():
                raise ValueError(
                    f"nothing tells where an answer ends and the next question begins, both are {before.kind}: "
                    'begin the question with a fixed text such as {text: "Question:"}'
                )
        self._check_fields()
        self._check_metric()
        return self

    def _check_fields(self) -> None:
        kinds: dict[str, Kind] = {}
        for part in (*self.question, *self.answer):
            for field in part.fields:
                if kinds.setdefault(field, part.kind) != part.kind:
                    raise ValueError(f"field {field!r} is text in one part and speech in another")
        if not kinds:
            raise ValueError("no part shows a field of the data")

    def _check_metric(self) -> None:
        kinds = {part.kind for part in self.answer}
        if self.metric in ("wer", "accuracy") and kinds != {"text"}:
            raise ValueError(f"metric {self.metric} judges answers in text alone")
        if self.metric == "unit_error_rate" and kinds != {"speech"}:
            raise ValueError("metric unit_error_rate judges answers in speech alone")
        if self.labels is not None and self.metric != "accuracy":
            raise ValueError("labels are for metric accuracy")
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            raise ValueError("a label is given twice")

    @property
    def fields(self) -> dict[str, tuple[Kind, bool]]:
        """The fields of the data: of which kind, and whether every row must have one."""
        fields: dict[str, tuple[Kind, bool]] = {}
        for part in (*self.question, *self.answer):
            for field in part.fields:
                needed = fields.get(field, (part.kind, False))[1] or not part.optional
                fields[field] = (part.kind, needed)
        return fields


def first_kind(answer: Sequence[Part]) -> Kind | None:
    """The modality that every answer begins with; None if that depends on the row."""
    kinds: set[Kind] = {part.kind for part in _reachable(answer)}
    return kinds.pop() if len(kinds) == 1 else None


def template_names() -> list[str]:
    """The names of the templates that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_template(name: str) -> Template:
    """A template by name, or by the path of a YAML file.

    Raises RecipeError: there is no such template, or what is wrong with it.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return load_config_file(Template, Path(name).expanduser(), "template")
    if name not in template_names():
        raise RecipeError(
            f"there is no template {name!r}; there are {', '.join(template_names())}, or give a .yaml file"
        )
    return load_config_file(Template, FOLDER / f"{name}.yaml", "template")


def _reachable(parts: Sequence[Part]) -> Iterator[Part]:
    """The parts that may come first, when optional ones are left out."""
    for part in parts:
        yield part
        if not part.optional:
            return


def _meetings(left: Sequence[Part], right: Sequence[Part]) -> Iterator[tuple[Part, Part]]:
    """The pairs that may stand side by side where `left` ends and `right` begins."""
    for before in _reachable(left[::-1]):
        for behind in _reachable(right):
            yield before, behind
