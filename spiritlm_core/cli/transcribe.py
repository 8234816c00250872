"""``spiritlm transcribe``: recordings to text with a model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spiritlm_core.cli.files import check_any, complain
from spiritlm_core.cli.options import (
    DeviceOption,
    DtypeOption,
    ModelArgument,
    SeedOption,
    ShotsOption,
    SpeechTokenizerOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    VariantOption,
)
from spiritlm_core.cli.progress import in_batches
from spiritlm_core.cli.shots import read_shots

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.content import Answer, Content
    from spiritlm_core.lm.generate.spirit import SpiritLM


def transcribe(
    model: ModelArgument,
    audio: Annotated[list[str], typer.Argument(metavar="FILE…", help="Recordings; - for one on standard input.")],
    shots: ShotsOption = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a transcript.")] = 200,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    top_k: TopKOption = 0,
    seed: SeedOption = 0,
    batch: Annotated[int, typer.Option(min=1, help="Recordings in one forward pass.")] = 8,
    variant: VariantOption = None,
    speech_tokenizer: SpeechTokenizerOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per file.")] = False,
) -> None:
    """Print a line per recording: its path, a tab, and what MODEL hears in it; of a single one the text alone.

    A recording that cannot be used is named on standard error; the others are still done, and the exit status is 1.
    """
    from spiritlm_core.lm.generate.presets import encoded_shots
    from spiritlm_core.lm.generate.spirit import SpiritLM

    check_any(audio)
    given = read_shots(shots, "text") if shots else []
    spirit = SpiritLM.from_pretrained(model, device, dtype, variant, speech_tokenizer)
    solved = encoded_shots(spirit, given)
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed}
    options = {**sampling, "max_new_tokens": max_new_tokens, "shots": solved}
    failed = 0
    for names in in_batches(audio, batch):
        good = dict(_questions(spirit, names, solved))
        failed += len(names) - len(good)
        for i, answer in zip(good, _asked(spirit, list(good.values()), options), strict=True):
            typer.echo(_line(names[i], answer, alone=len(audio) == 1, as_json=as_json))
    raise typer.Exit(1 if failed else 0)


def _questions(
    spirit: SpiritLM, names: Sequence[str], shots: Sequence[tuple[Any, Any]]
) -> Iterator[tuple[int, list[Content]]]:
    """The recordings that can be asked about, by their place; others are named."""
    from spiritlm_core.errors import ModelReferenceError, SpiritLMError
    from spiritlm_core.lm.generate.content import Speech
    from spiritlm_core.lm.generate.presets import encoded, prompt_length

    for index, name in enumerate(names):
        try:
            question = encoded(spirit, Speech(audio=sys.stdin.buffer.read() if name == "-" else Path(name)))
            prompt_length(spirit, question, "text", shots)
        except ModelReferenceError:
            raise
        except SpiritLMError as error:
            complain(name, error)
            continue
        yield index, question


def _asked(spirit: SpiritLM, questions: Sequence[Any], options: dict[str, Any]) -> list[Answer]:
    from spiritlm_core.lm.generate.presets import ask

    return ask(spirit, "asr", questions, **options) if questions else []


def _line(name: str, answer: Answer, *, alone: bool, as_json: bool) -> str:
    if as_json:
        found = {"file": name, "text": answer.text, "finish": answer.finish, "new_tokens": len(answer.ids)}
        return json.dumps(found, ensure_ascii=False)
    text = " ".join(answer.text.split())
    return text if alone else f"{name}\t{text}"
