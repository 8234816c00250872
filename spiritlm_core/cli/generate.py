"""``spiritlm generate``: continue text and speech with a model."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from spiritlm_core.cli import options
from spiritlm_core.cli.commands import SpiritCommand
from spiritlm_core.cli.files import content, is_file, read_shots, write_wav
from spiritlm_core.errors import SourceError, SpiritLMError
from spiritlm_core.files import text_of
from spiritlm_core.lm.generate.content import Answer, Content, Speech, SpeechSegment, Text

EXPLICIT = ("text", "audio", "speech")
_SEPARATOR = "\x00"  # cannot be in an argument of a shell command
_TOKENS = re.compile(r"(\[(Hu|Pi|St)[0-9]+\]\s*)+")
_RECORDING = re.compile(r"\.(wav|flac|mp3|ogg|opus|m4a|aac|aiff?|wma|webm|mp4)", re.IGNORECASE)


class InOrder(SpiritCommand):
    """Turns ``--text X`` and its like into parts, so that they keep their places among the others."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Rewrite, then parse as ever."""
        return super().parse_args(ctx, list(_in_order(args)))


def _in_order(args: list[str]) -> Iterator[str]:
    waiting = iter(args)
    for arg in waiting:
        name, equals, value = arg.removeprefix("--").partition("=")
        if arg == "--" or not arg.startswith("--") or name not in EXPLICIT:
            yield arg
        elif equals or (value := next(waiting, _SEPARATOR)) != _SEPARATOR:
            yield f"{name}{_SEPARATOR}{value}"
        else:
            yield arg  # without a value: the parser says so


COMMAND_CLASS = InOrder


def generate(
    model: options.ModelArgument,
    parts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PART]…", help="Text, or files with speech, in order; - reads standard input."),
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A part that is text, whatever it looks like.")] = None,
    audio: Annotated[list[str] | None, typer.Option(metavar="FILE", help="A part that is a recording.")] = None,
    speech: Annotated[list[str] | None, typer.Option(metavar="TOKENS", help="A part like [St3][Pi1][Hu7].")] = None,
    output: Annotated[
        Literal["text", "speech", "any"], typer.Option(case_sensitive=False, help="Modality of the answer.")
    ] = "any",
    max_new_tokens: Annotated[int, typer.Option(min=0, help="Most tokens of the answer.")] = 200,
    sampling: options.Sampling = options.Sampling(),
    shots: options.ShotsOption = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="STRING", help="A whole prompt, used as it is, instead of PARTs.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force/--no-force", help="Whether the answer is kept in its modality.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write speech there, one 16 kHz WAV file for each stretch.")
    ] = None,
    speaker: options.SpeakerOption = None,
    loading: options.Loading = options.Loading(),
    as_json: options.JsonOption = False,
) -> None:
    """Print the answer of MODEL to the PARTs: a line of text or of speech tokens for each stretch of one modality.

    A PART that names a file is a recording, one like [Hu7][Hu9] is speech, all else is text. With --out, speech that is
    long enough to be heard (a second, unless it opens the answer) is also written to DIR/1.wav and so on.
    """
    del text, audio, speech  # they have become parts, see InOrder
    inputs = [_part(part) for part in parts or ()]
    if prompt is not None and (inputs or shots):
        raise SpiritLMError("--prompt is a whole prompt: give it, or parts and --shots, but not both")
    options.check_out(out)
    solved = read_shots(shots, output) if shots else []
    spirit = loading.load(model)
    if out:
        spirit.speech_tokenizer.vocoder.voice(speaker)  # what cannot speak says so before it thinks
    answer = spirit.generate(
        inputs,
        output,
        prompt=prompt,
        shots=solved,
        max_new_tokens=max_new_tokens,
        force=force,
        **asdict(sampling),
    )
    if not as_json:
        for segment in answer:
            typer.echo(segment.content)
        if not len(answer):
            typer.echo("spiritlm: an empty answer: the model ended it at once", err=True)
    files, silent = _write(answer, out, speaker) if out else ({}, False)
    if as_json:
        typer.echo(json.dumps(_described(answer, files), ensure_ascii=False))
    raise typer.Exit(1 if silent else 0)


def _write(answer: Answer, out: Path, speaker: str | None) -> tuple[dict[int, str], bool]:
    """Write what can be heard, ``1.wav`` for the first segment, and so on.

    Returns the file of each segment that has one, and whether there is one that the vocoder cannot speak.
    """
    files, silent = {}, False
    for index, segment in enumerate(answer):
        try:
            if isinstance(segment, SpeechSegment) and len(waveform := segment.waveform(speaker)):
                files[index] = str(write_wav(out / f"{index + 1}.wav", waveform))
        except SpiritLMError as error:
            silent = True
            typer.echo(f"spiritlm: segment {index + 1}: {error}", err=True)
    return files, silent


def _described(answer: Answer, files: dict[int, str]) -> dict[str, Any]:
    described = answer.to_dict()
    for index, file in files.items():
        described["segments"][index]["file"] = file
    return described


def _part(part: str) -> Content:
    kind, marked, value = part.partition(_SEPARATOR)
    if marked:
        return _explicit(kind, value)
    if part == "-":
        return _guess(sys.stdin.buffer.read())
    if _TOKENS.fullmatch(part):
        return Speech(tokens=part)
    if is_file(part):
        return Speech(audio=Path(part))
    if _RECORDING.fullmatch(Path(part).suffix):
        raise SpiritLMError(f"{part}: no such file (say --text if it is text)")
    return Text(part)


def _explicit(kind: str, value: str) -> Content:
    if kind == "audio":
        if value != "-" and not is_file(value):
            raise SpiritLMError(f"--audio {value}: no such file")
        return Speech(audio=content(value))
    string = text_of(sys.stdin.buffer.read(), f"--{kind} -: standard input") if value == "-" else value
    return Text(string.removesuffix("\n")) if kind == "text" else Speech(tokens=string)


def _guess(data: bytes) -> Content:
    """What stands on standard input: a recording, unless it is text."""
    try:
        string = text_of(data, "standard input")
    except SourceError:
        return Speech(audio=data)
    return Speech(tokens=string) if _TOKENS.fullmatch(string) else Text(string.removesuffix("\n"))
