"""``spiritlm align``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from spiritlm_core.cli.options import DEFAULT_LAKE, LakeOption, check_file, checked_language, fetched_model
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.files import new_file, read_text


def align(
    audio: Annotated[Path, typer.Argument(metavar="AUDIO", exists=True, dir_okay=False, help="A recording.")],
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="What is said in it, as text in UTF-8."),
    ] = None,
    format_: Annotated[
        Literal["srt", "vtt", "textgrid", "ctm", "json"], typer.Option("--format", help="What is written.")
    ] = "srt",
    per: Annotated[
        Literal["line", "word"],
        typer.Option(help="What a cue of srt and vtt holds: a line of at most 42 characters, or a word."),
    ] = "line",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file to write, else AUDIO's name with the format's ending, here."),
    ] = None,
    aligner: Annotated[
        str,
        typer.Option(
            metavar="RECIPE|MODEL",
            help="The aligner that a recipe fitted in the lake, or a folder or reference of one.",
        ),
    ] = "quickstart",
    asr: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A faster-whisper model, which transcribes where there is no --text."),
    ] = None,
    language: Annotated[
        str, typer.Option(metavar="CODE", callback=checked_language, help="Language that is spoken.")
    ] = "en",
    lake: LakeOption = DEFAULT_LAKE,
) -> None:
    """Write when each word of AUDIO was said, and print the name of the file: subtitles, or a table of words."""
    from spiritlm_core.align.recording import align_recording, lines_of
    from spiritlm_core.export.formats import WORD_FILES

    if text is None and asr is None:
        raise SpiritLMError(
            f"{audio} has no transcript: name one with --text FILE, or a recogniser with --asr, for example "
            "--asr hf://Systran/faster-whisper-small.en"
        )
    suffix, write = WORD_FILES[format_]
    target = out or Path(f"{audio.stem}{suffix}")
    check_file(target)
    said = None if text is None else read_text(text)
    models = {"aligner": _aligner(aligner, lake)} | ({"asr": fetched_model(asr)} if asr else {})
    found = align_recording(audio, said, language, models)
    for reason in found.pop("left_out"):
        typer.echo(f"spiritlm: {audio}: a stretch is left out: {reason}", err=True)
    if doubtful := [word for word in found["words"] if word["doubtful"]]:
        what = f"{len(doubtful)} of {len(found['words'])} words, the first at {doubtful[0]['start']:.1f} s"
        typer.echo(f"spiritlm: {audio}: {what}, do not sound like what is said: is {text} its text?", err=True)
    if per == "line" and format_ in ("srt", "vtt"):
        found["words"] = lines_of(found["words"])
    with new_file(target) as written:
        write(found, written)
    typer.echo(target)


def _aligner(name: str, lake: str) -> Path:
    """The folder of an aligner. Raises SpiritLMError: there is none of this name."""
    from spiritlm_core.lake.lake import Lake

    if "://" in name or Path(name).exists():
        return fetched_model(name)
    held = Lake(lake)
    artifact = held.used_artifact(name, "aligner")
    if not artifact:
        there = [ref.recipe for ref in held.refs() if ref.name == "aligner"]
        raise SpiritLMError(
            f"{lake} has no aligner of a recipe {name!r}, and there is no such folder: name one with --aligner, for "
            f"example {there[0] if there else 'hf://facebook/wav2vec2-base-960h'}"
        )
    return held.artifact_folder(artifact)
