"""``spiritlm transcribe``: recordings to text with a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spiritlm_core.cli import options
from spiritlm_core.cli.files import Failures, check_any, content, in_batches, read_shots
from spiritlm_core.cli.results import tell_doubt

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.content import Answer, Content
    from spiritlm_core.lm.generate.spirit import SpiritLM


def transcribe(
    model: options.ModelArgument,
    audio: options.RecordingsArgument,
    shots: options.ShotsOption = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a transcript.")] = 200,
    temperature: options.TemperatureOption = 0.0,
    top_p: options.TopPOption = 1.0,
    top_k: options.TopKOption = 0,
    seed: options.SeedOption = 0,
    batch: Annotated[int, typer.Option(min=1, help="Recordings in one forward pass.")] = 8,
    variant: options.VariantOption = None,
    speech_tokenizer: options.SpeechTokenizerOption = None,
    device: options.DeviceOption = None,
    dtype: options.DtypeOption = None,
    as_json: options.JsonLinesOption = False,
) -> None:
    """Print a line per recording: its path, a tab, and what MODEL hears in it; of a single one the text alone.

    A recording that cannot be used is named on standard error; the others are still done, and the exit status is 1.
    """
    from spiritlm_core.lm.generate.presets import ask, encoded_shots
    from spiritlm_core.lm.generate.spirit import SpiritLM

    check_any(audio)
    given = read_shots(shots, "text") if shots else []
    spirit = SpiritLM.from_pretrained(model, device, dtype, variant, speech_tokenizer)
    tell_doubt(spirit, "transcribe", shots=bool(given))
    solved = encoded_shots(spirit, given)
    sampling: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed}
    failures = Failures()
    for names in in_batches(audio, batch):
        heard = questions(spirit, names, solved, failures)
        asked = ask(spirit, "asr", list(heard.values()), **sampling, max_new_tokens=max_new_tokens, shots=solved)
        for i, answer in zip(heard, asked, strict=True):
            if answer.empty:
                typer.echo(f"spiritlm: {names[i]}: {answer.empty}", err=True)
            typer.echo(_line(names[i], answer, alone=len(audio) == 1, as_json=as_json))
    failures.leave()


def questions(
    spirit: SpiritLM, names: Sequence[str], shots: Sequence[tuple[Any, Any]], failures: Failures
) -> dict[int, list[Content]]:
    """The recordings that can be asked about, by their place."""
    from spiritlm_core.lm.generate.content import Speech
    from spiritlm_core.lm.generate.presets import encoded, prompt_length

    encoded_by_place = {}
    for index, name in enumerate(names):
        with failures.named(name):
            question = encoded(spirit, Speech(audio=content(name)))
            prompt_length(spirit, question, "text", shots)
            encoded_by_place[index] = question
    return encoded_by_place


def _line(name: str, answer: Answer, *, alone: bool, as_json: bool) -> str:
    if as_json:
        result = {"file": name, "text": answer.text, "finish": answer.finish, "new_tokens": len(answer.ids)}
        return json.dumps(result, ensure_ascii=False)
    text = " ".join(answer.text.split())
    return text if alone else f"{name}\t{text}"
