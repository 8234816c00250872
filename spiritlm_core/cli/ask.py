"""``spiritlm transcribe``, ``say`` and ``classify``: tasks that a model is asked to do."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from spiritlm_core.cli import options
from spiritlm_core.cli.files import Failures, check_any, content, in_batches, read_shots, wav_stream, write_wav
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.files import text_of
from spiritlm_core.intake.sniff import AUDIO_SUFFIXES
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.lm.generate import presets
from spiritlm_core.lm.generate.content import Answer, Content, Segment, Speech, Text
from spiritlm_core.lm.generate.presets import Classification, ask, ask_stream, encoded, encoded_shots, prompt_length
from spiritlm_core.lm.generate.speaking import Sound, Voice, hear_stream, said
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.metrics.verdicts import doubt, given_labels


def transcribe(
    model: options.ModelArgument,
    audio: options.RecordingsArgument,
    shots: options.ShotsOption = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a transcript.")] = 200,
    hearings: Annotated[
        int,
        typer.Option(
            min=1,
            max=presets.HEARINGS,
            help="How often a recording is heard, later each time; the likeliest answer is kept. Expressive: once.",
        ),
    ] = presets.HEARINGS,
    sampling: options.Sampling = options.Sampling(),
    batch: Annotated[int, typer.Option(min=1, help="Recordings in one forward pass.")] = 8,
    loading: options.Loading = options.Loading(),
    as_json: options.JsonLinesOption = False,
) -> None:
    """Print a line per recording: its path, a tab, and what MODEL hears in it; of a single one the text alone.

    A recording that cannot be used is named on standard error; the others are still done, and the exit status is 1.
    """
    check_any(audio)
    spirit, solved = _opened(model, loading, "transcribe", shots, "text")
    settings: dict[str, Any] = {**asdict(sampling), "max_new_tokens": max_new_tokens, "shots": solved}
    settings |= {"hearings": hearings, "batch_size": batch * hearings}
    failures = Failures()
    for names in in_batches(audio, batch):
        heard = questions(spirit, names, solved, failures)
        for i, answer in zip(heard, ask(spirit, "asr", list(heard.values()), **settings), strict=True):
            _tell_empty(names[i], answer.empty)
            typer.echo(_line(names[i], answer, alone=len(audio) == 1, as_json=as_json))
    failures.leave()


def _opened(
    model: str, loading: options.Loading, task: str, shots: Path | None, output: str
) -> tuple[SpiritLM, list[tuple[Any, Any]]]:
    """A model, and solved examples; on standard error what its own evaluation says, if it is no good at the task."""
    given = read_shots(shots, output) if shots else []
    spirit = loading.load(model)
    if sentence := doubt(spirit.verdicts, task, shots=bool(given)):
        typer.echo(f"spiritlm: {sentence}", err=True)
    return spirit, encoded_shots(spirit, given)


def _tell_empty(name: str, why: str | None) -> None:
    if why:
        typer.echo(f"spiritlm: {name}: {why}", err=True)


def questions(
    spirit: SpiritLM, names: Sequence[str], shots: Sequence[tuple[Any, Any]], failures: Failures
) -> dict[int, list[Content]]:
    """The recordings that can be asked about, by their place."""
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
    sampling: options.Sampling = options.Sampling(),
    batch: Annotated[int, typer.Option(min=1, help="Texts in one forward pass.")] = 8,
    loading: options.Loading = options.Loading(),
    as_json: options.JsonLinesOption = False,
) -> None:
    """Write what MODEL says for each TEXT as 16 kHz WAV, and print a line per text: the file, a tab, and the text.

    A text that cannot be said is named on standard error; the others are still done, and the exit status is 1.
    With --json and without --out, speech tokens alone are printed, which needs no vocoder. With --out - speech is
    written while the model is still thinking of the rest.
    """
    texts = [line for given in text for line in (_lines() if given == "-" else [given]) if line.strip()]
    targets = _targets(out, len(texts), as_json=as_json)
    spirit, solved = _opened(model, loading, "say", shots, "speech")
    if out:
        spirit.speech_tokenizer.vocoder.voice(speaker, expression)  # what cannot speak says so before it thinks
    settings = {**asdict(sampling), "max_new_tokens": max_new_tokens, "shots": solved}
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
    lines = text_of(sys.stdin.buffer.read(), "-: standard input").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _targets(out: str | None, count: int, *, as_json: bool) -> list[Path | None]:
    """The file of each text; none where no speech, or standard output, is wanted."""
    if not count:
        raise SpiritLMError("there is no text to say")
    if out is not None and Path(out).suffix.lower() in AUDIO_SUFFIXES - {".wav"}:
        raise SpiritLMError(f"--out {out}: only WAV is written; name FILE.wav, or a folder")
    if out is None:
        if as_json:
            return [None] * count
        raise SpiritLMError("say where the speech goes: --out FILE.wav, --out DIR, or --out - for standard output")
    if out != "-" and not out.lower().endswith(".wav"):
        options.check_out(Path(out))
        return [Path(out) / f"{number}.wav" for number in range(1, count + 1)]
    if count > 1:
        raise SpiritLMError(f"--out {out} is for a single text, and there are {count}: name a folder")
    if out == "-" and as_json:
        raise SpiritLMError("--out - and --json both want standard output: name a file with --out")
    if out == "-" and sys.stdout.isatty():
        raise SpiritLMError("--out - would write a WAV file to the terminal: redirect it, or name a file with --out")
    if out != "-":
        options.check_file(Path(out))
    return [None if out == "-" else Path(out)]


def _asked(
    spirit: SpiritLM, texts: dict[int, str], settings: dict[str, Any], failures: Failures
) -> Iterator[tuple[int, Answer]]:
    """The answer to each text that can be asked, by its place."""
    questions = {}
    for i, text in texts.items():
        with failures.named(f"{text!r:.60}"):
            prompt_length(spirit, Text(text), "speech", settings["shots"])
            questions[i] = Text(text)
    return zip(questions, ask(spirit, "tts", list(questions.values()), **settings), strict=True)


def _stream(spirit: SpiritLM, text: str, settings: dict[str, Any], voice: Voice) -> None:
    """Speech to standard output as it comes."""
    prompt_length(spirit, Text(text), "speech", settings["shots"])
    with wav_stream(sys.stdout.buffer) as write:
        begun = False

        def give(piece: Segment | Sound) -> None:
            nonlocal begun
            if isinstance(piece, Sound):
                write(piece.waveform)
                begun = True

        heard = hear_stream(spirit, ask_stream(spirit, "tts", Text(text), **settings), give, voice)
        if reason := next((part.silent for part in heard if part.silent), None if begun else _NOTHING):
            raise SpiritLMError(f"{text!r:.60}: {reason}")


def _said(spirit: SpiritLM, answer: Answer, target: Path | None, voice: Voice) -> dict[str, Any]:
    """Write one answer, and describe it."""
    about = {"tokens": answer.tokens, "finish": answer.finish}
    if target is None:
        return about
    waveform = said(spirit, answer, voice)
    write_wav(target, waveform)
    return {"file": str(target), "seconds": len(waveform) / SAMPLE_RATE, **about}


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
    loading: options.Loading = options.Loading(),
    as_json: options.JsonLinesOption = False,
) -> None:
    """Print a line per recording: its path, a tab, and the likeliest label; of a single one the label alone.

    With --json each line has the probability of every label. A recording that cannot be used is named on standard
    error; the others are still done, and the exit status is 1.
    """
    check_any(audio)
    known = () if labels is None else tuple(label.strip() for label in labels.split(","))
    if labels is not None:
        presets.check_labels(known)
    spirit, solved = _opened(model, loading, "classify", shots, "text")
    known, failures = known or _own_labels(spirit), Failures()
    for i, question in questions(spirit, audio, solved, failures).items():
        with failures.named(audio[i]):
            choice = presets.classify(spirit, question, known, solved)
            _tell_empty(audio[i], choice.empty)
            typer.echo(_choice_line(audio[i], choice, alone=len(audio) == 1, as_json=as_json))
    failures.leave()


def _own_labels(spirit: SpiritLM) -> tuple[str, ...]:
    """Those that the model was judged with. Raises SpiritLMError if there are none."""
    if not (known := given_labels(spirit.verdicts)):
        raise SpiritLMError("this model names no labels of its own: give some, for example --labels yes,no")
    presets.check_labels(known)
    return known


def _choice_line(name: str, choice: Classification, *, alone: bool, as_json: bool) -> str:
    if as_json:
        odds = dict(zip(choice.labels, choice.probabilities.round(6).tolist(), strict=True))
        heard = {"empty": choice.empty} if choice.empty else {}
        return json.dumps({"file": name, "label": choice.label, "probabilities": odds, **heard}, ensure_ascii=False)
    return choice.label if alone else f"{name}\t{choice.label}"
