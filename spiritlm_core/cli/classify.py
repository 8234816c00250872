"""``spiritlm classify``: a label for each recording with a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spiritlm_core.cli import options
from spiritlm_core.cli.files import Failures, check_any, read_shots
from spiritlm_core.cli.results import tell_doubt
from spiritlm_core.cli.transcribe import questions
from spiritlm_core.errors import SpiritLMError

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.presets import Classification
    from spiritlm_core.lm.generate.spirit import SpiritLM


def classify(
    model: options.ModelArgument,
    audio: options.RecordingsArgument,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…", help="Labels to choose from; those that the model was judged with, if not given."
        ),
    ] = None,
    shots: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='Solved examples, one {"audio"|"speech": …, "text": LABEL} a line.'),
    ] = None,
    variant: options.VariantOption = None,
    speech_tokenizer: options.SpeechTokenizerOption = None,
    device: options.DeviceOption = None,
    dtype: options.DtypeOption = None,
    as_json: options.JsonLinesOption = False,
) -> None:
    """Print a line per recording: its path, a tab, and the likeliest label; of a single one the label alone.

    With --json each line has the probability of every label. A recording that cannot be used is named on standard
    error; the others are still done, and the exit status is 1.
    """
    from spiritlm_core.lm.generate import presets
    from spiritlm_core.lm.generate.spirit import SpiritLM

    check_any(audio)
    given = read_shots(shots, "text") if shots else []
    spirit = SpiritLM.from_pretrained(model, device, dtype, variant, speech_tokenizer)
    known = _labels(labels, spirit)
    presets.check_labels(known)
    tell_doubt(spirit, "classify", shots=bool(given))
    solved, failures = presets.encoded_shots(spirit, given), Failures()
    for i, question in questions(spirit, audio, solved, failures).items():
        with failures.named(audio[i]):
            choice = presets.classify(spirit, question, known, solved)
            typer.echo(_line(audio[i], choice, alone=len(audio) == 1, as_json=as_json))
    failures.leave()


def _labels(given: str | None, spirit: SpiritLM) -> tuple[str, ...]:
    """Those on the command line, or those of the model. Raises SpiritLMError if there are neither."""
    from spiritlm_core.metrics.verdicts import given_labels

    if given is not None:
        return tuple(label.strip() for label in given.split(","))
    if not (known := given_labels(spirit.verdicts)):
        raise SpiritLMError("this model names no labels of its own: give some, for example --labels yes,no")
    return known


def _line(name: str, choice: Classification, *, alone: bool, as_json: bool) -> str:
    if as_json:
        odds = dict(zip(choice.labels, choice.probabilities.round(6).tolist(), strict=True))
        return json.dumps({"file": name, "label": choice.label, "probabilities": odds}, ensure_ascii=False)
    return choice.label if alone else f"{name}\t{choice.label}"
