"""``spiritlm say``: text to speech with a model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spiritlm_core.cli import options
from spiritlm_core.cli.files import Failures, in_batches, read_shots
from spiritlm_core.cli.results import tell_doubt
from spiritlm_core.cli.wav import WavStream, write_wav
from spiritlm_core.errors import SpiritLMError

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.content import Answer
    from spiritlm_core.lm.generate.speaking import Voice
    from spiritlm_core.lm.generate.spirit import SpiritLM

_NOTHING = "the model answered with nothing that can be heard"


def say(
    model: options.ModelArgument,
    text: Annotated[list[str], typer.Argument(metavar="TEXT…", help="What to say; - for lines of standard input.")],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.wav|DIR|-",
            help="A file for a single text, a folder for 1.wav, 2.wav …; - is standard output.",
        ),
    ] = None,
    speaker: options.SpeakerOption = None,
    expression: Annotated[int | None, typer.Option(min=0, help="Manner of speaking, if the vocoder has any.")] = None,
    shots: options.ShotsOption = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most speech tokens of an answer.")] = 400,
    temperature: options.TemperatureOption = 0.0,
    top_p: options.TopPOption = 1.0,
    top_k: options.TopKOption = 0,
    seed: options.SeedOption = 0,
    batch: Annotated[int, typer.Option(min=1, help="Texts in one forward pass.")] = 8,
    variant: options.VariantOption = None,
    speech_tokenizer: options.SpeechTokenizerOption = None,
    device: options.DeviceOption = None,
    dtype: options.DtypeOption = None,
    as_json: options.JsonLinesOption = False,
) -> None:
    """Write what MODEL says for each TEXT as 16 kHz WAV, and print a line per text: the file, a tab, and the text.

    A text that cannot be said is named on standard error; the others are still done, and the exit status is 1.
    With --json and without --out, speech tokens alone are printed, which needs no vocoder. With --out - speech is
    written while the model is still thinking of the rest.
    """
    from spiritlm_core.lm.generate.presets import encoded_shots
    from spiritlm_core.lm.generate.speaking import Voice
    from spiritlm_core.lm.generate.spirit import SpiritLM

    texts = [line for given in text for line in (_lines() if given == "-" else [given]) if line.strip()]
    targets = _targets(out, len(texts), as_json=as_json)
    solved = read_shots(shots, "speech") if shots else []
    spirit = SpiritLM.from_pretrained(model, device, dtype, variant, speech_tokenizer)
    tell_doubt(spirit, "say", shots=bool(solved))
    if out:
        spirit.speech_tokenizer.vocoder.voice(speaker, expression)  # what cannot speak says so before it thinks
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed}
    settings = {**sampling, "max_new_tokens": max_new_tokens, "shots": encoded_shots(spirit, solved)}
    voice, failures = Voice(speaker, expression), Failures()
    if out == "-":
        _stream(spirit, texts[0], settings, voice)
        raise typer.Exit(0)
    for places in in_batches(range(len(texts)), batch):
        for i, answer in _asked(spirit, {i: texts[i] for i in places}, settings, failures):
            with failures.named(f"{texts[i]!r:.60}"):
                said = _said(spirit, answer, targets[i], voice)
                line = json.dumps({"text": texts[i], **said}, ensure_ascii=False)
                typer.echo(line if as_json else f"{said['file']}\t{texts[i]}")
    failures.leave()


def _lines() -> list[str]:
    try:
        lines = sys.stdin.buffer.read().decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise SpiritLMError("-: standard input is not UTF-8 text") from error
    return [line.strip() for line in lines if line.strip()]


def _targets(out: str | None, count: int, *, as_json: bool) -> list[Path | None]:
    """The file of each text; none where no speech, or standard output, is wanted."""
    from spiritlm_core.intake.sniff import AUDIO_SUFFIXES

    if not count:
        raise SpiritLMError("there is no text to say")
    if out is not None and Path(out).suffix.lower() in AUDIO_SUFFIXES - {".wav"}:
        raise SpiritLMError(f"--out {out}: only WAV is written; name FILE.wav, or a folder")
    if out is None:
        if as_json:
            return [None] * count
        raise SpiritLMError("say where the speech goes: --out FILE.wav, --out DIR, or --out - for standard output")
    if out != "-" and not out.lower().endswith(".wav"):
        return [Path(out) / f"{number}.wav" for number in range(1, count + 1)]
    if count > 1:
        raise SpiritLMError(f"--out {out} is for a single text, and there are {count}: name a folder")
    if out == "-" and as_json:
        raise SpiritLMError("--out - and --json both want standard output: name a file with --out")
    if out == "-" and sys.stdout.isatty():
        raise SpiritLMError("--out - would write a WAV file to the terminal: redirect it, or name a file with --out")
    return [None if out == "-" else Path(out)]


def _asked(
    spirit: SpiritLM, texts: dict[int, str], settings: dict[str, Any], failures: Failures
) -> Iterator[tuple[int, Answer]]:
    """The answer to each text that can be asked, by its place."""
    from spiritlm_core.lm.generate.content import Text
    from spiritlm_core.lm.generate.presets import ask, prompt_length

    questions = {}
    for i, text in texts.items():
        with failures.named(f"{text!r:.60}"):
            prompt_length(spirit, Text(text), "speech", settings["shots"])
            questions[i] = Text(text)
    return zip(questions, ask(spirit, "tts", list(questions.values()), **settings), strict=True)


def _stream(spirit: SpiritLM, text: str, settings: dict[str, Any], voice: Voice) -> None:
    """Speech to standard output as it comes."""
    from spiritlm_core.lm.generate.content import Segment, Text
    from spiritlm_core.lm.generate.presets import ask_stream, prompt_length
    from spiritlm_core.lm.generate.speaking import Sound, hear_stream

    prompt_length(spirit, Text(text), "speech", settings["shots"])
    with WavStream(sys.stdout.buffer) as wav:

        def give(piece: Segment | Sound) -> None:
            if isinstance(piece, Sound):
                wav.write(piece.waveform)

        heard = hear_stream(spirit, ask_stream(spirit, "tts", Text(text), **settings), give, voice)
        if reason := next((part.silent for part in heard if part.silent), None if wav.begun else _NOTHING):
            raise SpiritLMError(f"{text!r:.60}: {reason}")


def _said(spirit: SpiritLM, answer: Answer, target: Path | None, voice: Voice) -> dict[str, Any]:
    """Write one answer, and describe it."""
    from spiritlm_core.lake.schema import SAMPLE_RATE
    from spiritlm_core.lm.generate.speaking import said

    about = {"tokens": answer.tokens, "finish": answer.finish}
    if target is None:
        return about
    waveform = said(spirit, answer, voice)
    write_wav(target, waveform)
    return {"file": str(target), "seconds": len(waveform) / SAMPLE_RATE, **about}
