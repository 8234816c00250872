"""``spiritlm tokenize``: speech tokens of audio files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from spiritlm_core.cli import options
from spiritlm_core.cli.files import Failures, check_any, content
from spiritlm_core.speech.grid import RATES_HZ

if TYPE_CHECKING:
    from spiritlm_core.speech.tokenizer import SpeechTokenizer
    from spiritlm_core.speech.types import Units


def tokenize(
    audio: options.AudioArgument,
    checkpoints: options.CheckpointsOption = None,
    model: options.ModelOption = None,
    variant: options.VariantOption = None,
    units: Annotated[bool, typer.Option("--units", help="Print the streams as they are, one column each.")] = False,
    as_json: options.JsonLinesOption = False,
    device: options.DeviceOption = None,
) -> None:
    """Print a line per file: its path, a tab, and its speech tokens such as [St81][Pi13][Hu78].

    A file that cannot be read is named on standard error; the others are still done, and the exit status is 1.
    """
    from spiritlm_core.speech.tokenizer import SpeechTokenizer

    check_any(audio)
    tokenizer = SpeechTokenizer.from_pretrained(model or checkpoints, variant, device)
    failures = Failures()
    for name in audio:
        with failures.named(name):
            typer.echo(_line(tokenizer, name, tokenizer.encode(content(name)), raw=units, as_json=as_json))
    failures.leave()


def _line(tokenizer: SpeechTokenizer, name: str, units: Units, *, raw: bool, as_json: bool) -> str:
    streams = {stream: getattr(units, stream) for stream in RATES_HZ}
    if as_json:
        lists = {stream: None if values is None else values.tolist() for stream, values in streams.items()}
        return json.dumps({"file": name, **lists, "string": tokenizer.to_string(units)})
    if raw:
        return "\t".join([name, *(" ".join(map(str, values)) for values in streams.values() if values is not None)])
    return f"{name}\t{tokenizer.to_string(units)}"
