"""``spiritlm evaluate suite``, ``build-suite`` and ``fewshot``: models on test sets, and on data of one's own."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from spiritlm_core.audio.voices.espeak import Espeak
from spiritlm_core.cli.options import (
    JsonOption,
    Loading,
    ModelArgument,
    answer,
    check_out,
    checked_language,
    fetched_reference,
)
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.evaluate.config import KINDS, VOICES, SuiteConfig
from spiritlm_core.evaluate.rendering import write_report
from spiritlm_core.evaluate.suite import build as building
from spiritlm_core.evaluate.suite.layouts import read_suite, read_task
from spiritlm_core.evaluate.suite.stage import page, run_suite, table
from spiritlm_core.evaluate.suite.task import SuiteTask
from spiritlm_core.finetune.template import find_template
from spiritlm_core.intake.statcache import StatCache
from spiritlm_core.lm.generate.spirit import SpiritLM
from spiritlm_core.lm.model.folder import locate
from spiritlm_core.speech.tokenizer import SpeechTokenizer


def suite(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL…", help="Folders of models, ours or released ones, or hf://ORG/NAME."),
    ],
    task: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FOLDER", help="A task, e.g. sblimp=syntactic/. May be repeated.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--suite", metavar="FOLDER", help="A folder of tasks, each named after its folder.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most items of a task, drawn by the seed.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of items, solved examples, continuations and intervals.")] = 0,
    shots: Annotated[int, typer.Option(min=0, help="Solved examples of few-shot tasks.")] = 5,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer or continuation in tokens.")] = 200,
    recogniser: Annotated[
        str | None,
        typer.Option(metavar="REF", help="faster-whisper model, hf://… or a folder, that writes down spoken answers."),
    ] = None,
    language: Annotated[
        str,
        typer.Option(
            callback=checked_language, help="Language of the transcripts, for the recogniser and word errors."
        ),
    ] = "en",
    text_judge: Annotated[
        str | None, typer.Option(metavar="REF", help="Text classifier of styles, instead of one fitted on the set.")
    ] = None,
    speech_judge: Annotated[
        str | None, typer.Option(metavar="REF", help="Audio classifier of styles; needs a vocoder.")
    ] = None,
    lm_eval: Annotated[
        str | None, typer.Option("--lm-eval", metavar="TASK,…", help="Text tasks of lm-eval, e.g. mmlu,arc_easy.")
    ] = None,
    lm_eval_limit: Annotated[int | None, typer.Option(min=1, help="Most questions of each task of lm-eval.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Answers written at once.")] = 8,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Put suite.json, .md and .html here.")] = None,
    loading: Loading = Loading(),
    as_json: JsonOption = False,
) -> None:
    """Measure models on test sets, each a subfolder of --suite with a known layout.

    Which side of a pair is more likely (sWUGGY, sBLIMP, SALMon, StoryCloze), which label, few-shot recognition and
    synthesis, style preservation, multiple choice, and text tasks of lm-eval; chance and trivial answers beside each.
    """
    check_out(out)
    loaders = _loaders(models, loading)
    names = tuple(filter(None, (name.strip() for name in (lm_eval or "").split(","))))
    tasks = _tasks(task or [], folder, optional=bool(names))
    config = SuiteConfig.of_options(
        limit=limit,
        seed=seed,
        shots=shots,
        max_new_tokens=max_new_tokens,
        recogniser=recogniser and fetched_reference(recogniser),
        language=language,
        text_judge=text_judge and fetched_reference(text_judge),
        speech_judge=speech_judge and fetched_reference(speech_judge),
        lm_eval=names,
        lm_eval_limit=lm_eval_limit,
    )

    def work() -> dict[str, Any]:
        report = run_suite(loaders, tasks, config, batch_size=batch, tell=partial(typer.echo, err=True))
        if out is not None:
            write_report(out, "suite", report, table(report), page(report))
        return report

    answer(work, lambda report, stream: print(table(report).plain(), file=stream), as_json=as_json)


def _tasks(named: list[str], folder: Path | None, *, optional: bool) -> list[SuiteTask]:
    tasks = read_suite(folder) if folder is not None else []
    for given in named:
        name, _, where = (part.strip() for part in given.partition("="))
        if not name or not where:
            raise SpiritLMError(f"--task {given!r}: write NAME=FOLDER, for example --task sblimp=syntactic/")
        tasks += read_task(name, Path(where))
    if not tasks and not optional:
        raise SpiritLMError("name at least one task: --task NAME=FOLDER or --suite FOLDER (see evaluate build-suite)")
    return tasks


def _loaders(models: list[str], loading: Loading) -> dict[str, Callable[[], SpiritLM]]:
    """Name of each model → what loads it; a speech tokenizer of all is loaded once."""
    if len(set(models)) < len(models):
        raise SpiritLMError("a model is named twice")
    for path in models:
        locate(path, loading.variant)  # not after an hour of the others
    given = asdict(loading)
    if loading.speech_tokenizer is not None:
        shared = SpeechTokenizer.from_pretrained(loading.speech_tokenizer, loading.variant, loading.device)
        given["speech_tokenizer"] = shared
    short = [Path(path).resolve().name for path in models]
    names = [name if short.count(name) == 1 else path for name, path in zip(short, models, strict=True)]
    return {name: partial(SpiritLM.from_pretrained, path, **given) for name, path in zip(names, models, strict=True)}


def build_suite(
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder.")],
    voice: Annotated[
        list[str] | None,
        typer.Option(metavar="VOICE", help="Voice of eSpeak NG, instead of en-us and en-us+f3. May be repeated."),
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME", help="Only this set. May be repeated.")
    ] = None,
    items: Annotated[int | None, typer.Option(min=2, help="Most items of each set, or of each of its parts.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw of items.")] = 0,
    text_only: Annotated[
        bool, typer.Option("--text-only", help="Build the text sets alone, without recordings.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make small open test sets for `spiritlm evaluate suite --suite DIR`, spoken by eSpeak NG.

    Prints a line for each: its name, a tab, and how many pairs, labelled texts, utterances or questions it has.
    """
    with Espeak() as espeak:
        speak = None if text_only else espeak
        built = building.build_suite(out, speak, voice or VOICES, kind or KINDS, items, seed)
    typer.echo(json.dumps(built) if as_json else "\n".join(f"{name}\t{count}" for name, count in built.items()))


def fewshot(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK", help="Template: asr, tts, classification, speech-to-speech, or path of a .yaml file."
        ),
    ],
    model: ModelArgument,
    data: Annotated[str, typer.Argument(metavar="DATA", help="A .parquet or .jsonl file, or a folder of them.")],
    shots: Annotated[int, typer.Option(min=0, help="Solved examples in front of each question.")] = 5,
    questions: Annotated[int, typer.Option(min=1, help="Most held-out rows to ask.")] = 100,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=COLUMN", help="Column of a field of the template. May be repeated."),
    ] = None,
    split_column: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column that says train or test.")] = None,
    held_out: Annotated[float, typer.Option(min=0, max=0.99, help="Held-out share where no column says it.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws of questions and shots, and of intervals.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Prompts in one forward pass.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 200,
    loading: Loading = Loading(),
    answers: Annotated[bool, typer.Option("--answers", help="With --json: every question's answer, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask MODEL held-out rows of DATA, each behind solved examples drawn from the train rows.

    Prints word and character error rates (asr), unit error rates (tts, speech-to-speech), or the accuracy of the most
    likely label (classification), each with a 95 % bootstrap interval.
    """
    locate(model, loading.variant)
    from spiritlm_core.finetune.config import DataConfig, SplitConfig
    from spiritlm_core.finetune.fewshot import FewShotConfig, run_few_shot
    from spiritlm_core.finetune.reading import read_rows
    from spiritlm_core.finetune.rows import commonest

    pairs = [item.partition("=") for item in column or []]
    if wrong := [field for field, equals, name in pairs if not (field and equals and name)]:
        raise SpiritLMError(f"--column {wrong[0]}: write FIELD=COLUMN, for example --column audio=path")
    columns = {field: name for field, _, name in pairs}
    template = find_template(task)
    source = DataConfig(
        path=data, columns=columns, split_column=split_column, split=SplitConfig.of_options(held_out_share=held_out)
    )
    rows = read_rows(source, template, StatCache())
    config = FewShotConfig.of_options(shots=shots, questions=questions, seed=seed, max_new_tokens=max_new_tokens)
    spirit = loading.load(model)
    report = run_few_shot(spirit, template, rows, source.split, config, batch_size=batch)
    result = report.to_dict(answers=answers)
    if report.rejected:
        typer.echo(f"spiritlm: {sum(report.rejected.values())} rows rejected: {commonest(report.rejected)}", err=True)
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else _lines(result))


def _lines(result: dict[str, Any]) -> str:
    """One figure a line: its name, a tab, its value, and the interval if it has one."""
    lines = []
    for name, value in result.items():
        if name.endswith(("_low", "_high")) or isinstance(value, list | dict):
            continue
        low, high = result.get(f"{name}_low"), result.get(f"{name}_high")
        lines.append(f"{name}\t{value}" + (f"\t[{low}, {high}]" if low is not None else ""))
    return "\n".join(lines)
