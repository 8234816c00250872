"""Commands of the speech tokenizer: ``spiritlm tokenize``, ``resynthesize`` and ``import-checkpoints``."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from spiritlm_core.cli import options
from spiritlm_core.cli.files import Failures, check_any, content, write_wav
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.speech.grid import RATES_HZ
from spiritlm_core.speech.released.convert import import_checkpoints as convert
from spiritlm_core.speech.tokenizer import SpeechTokenizer
from spiritlm_core.speech.types import Units


def resynthesize(
    audio: options.AudioArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the WAV files, named after the audio.")],
    checkpoints: options.CheckpointsOption = None,
    model: options.ModelOption = None,
    variant: options.VariantOption = None,
    speaker: options.SpeakerOption = None,
    predict_durations: Annotated[
        bool,
        typer.Option(
            "--predict-durations",
            help="Collapse repeated units and predict durations, as for a language model; else timing is kept.",
        ),
    ] = False,
    as_json: options.JsonLinesOption = False,
    device: options.DeviceOption = None,
) -> None:
    """Print a line per file: its path, a tab, and the WAV file that its units were turned into.

    A file that cannot be done is named on standard error; the others are still done, and the exit status is 1.
    """
    check_any(audio)
    options.check_out(out)
    targets = _targets(audio, out)
    tokenizer = SpeechTokenizer.from_pretrained(model or checkpoints, variant, device)
    tokenizer.vocoder.voice(speaker)
    failures = Failures()
    for name, target in zip(audio, targets, strict=True):
        with failures.named(name):
            waveform = _resynthesized(tokenizer, name, speaker, predict=predict_durations)
            write_wav(target, waveform)
            result = {"file": name, "wav": str(target), "seconds": len(waveform) / SAMPLE_RATE}
            typer.echo(json.dumps(result) if as_json else f"{name}\t{target}")
    failures.leave()


def _targets(audio: list[str], out: Path) -> list[Path]:
    """One file for each; none is written twice, and no audio is overwritten."""
    targets = [out / f"{'stdin' if name == '-' else Path(name).stem}.wav" for name in audio]
    for target in targets:
        if targets.count(target) > 1:
            raise SpiritLMError(f"{target} would be written more than once: resynthesize files of one name apart")
        if target.exists() and any(target.samefile(given) for given in audio if Path(given).exists()):
            raise SpiritLMError(f"{target} is one of the files to read: name another folder with --out")
    return targets


def _resynthesized(tokenizer: SpeechTokenizer, name: str, speaker: str | None, *, predict: bool) -> NDArray[np.float32]:
    units = tokenizer.encode(content(name))
    if predict:
        return tokenizer.decode(tokenizer.to_string(units), speaker)
    return tokenizer.decode(units, speaker, predict_durations=False)


def import_checkpoints(
    root: Annotated[
        Path,
        typer.Argument(metavar="ROOT", help="Folder of the released checkpoints; holds speech_tokenizer/hubert_25hz."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; must be new or empty.")],
    variant: options.VariantOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at OUT.")] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Convert released speech tokenizer files to safetensors, checking every tensor; no code in them is run.

    SpeechTokenizer.from_pretrained and `spiritlm tokenize --model` load OUT. The same files are not converted twice.
    """
    done = convert(root, out, variant, force=force)
    if as_json:
        fields = {"folder": str(done.folder), "variant": done.variant, "digest": done.digest, "fresh": done.fresh}
        typer.echo(json.dumps(fields))
    else:
        typer.echo(f"{done.folder}: {done.variant}, {'written' if done.fresh else 'up to date'}")


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
