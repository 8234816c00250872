"""``spiritlm evaluate suite`` and ``build-suite``: zero-shot tasks on models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import VariantOption

if TYPE_CHECKING:
    from spiritlm_core.evaluate.suite.pairs import Task
    from spiritlm_core.lm.spirit import SpiritLM


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("suite")(suite)
    app.command("build-suite")(build_suite)


def suite(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL…", help="Folders of models; released ones too.")],
    task: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FOLDER", help="A task, e.g. sblimp=syntactic/. May be repeated.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--suite", metavar="FOLDER", help="A folder of tasks, each named after its folder.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most items of a task, drawn by the seed.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the items drawn and of the intervals.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Sides in one forward pass.")] = 8,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Put suite.json and suite.html here.")] = None,
    speech_tokenizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For all models, instead of the one beside each.")
    ] = None,
    variant: VariantOption = None,
    device: Annotated[str | None, typer.Option(help="Where to compute; a GPU if there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the weights, such as bfloat16.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Ask models which side of a pair is more likely: sWUGGY, sBLIMP, SALMon, StoryCloze and tasks of your own.

    Tasks with text and speech are asked in both; stories also across, T→S and S→T. Chance is 50 % everywhere.
    """
    from flows.cli.run import stdout_for_results
    from spiritlm_core.evaluate.suite.run import SuiteConfig, run_suite
    from spiritlm_core.evaluate.suite.table import page, plain

    tasks = _tasks(task or [], folder)
    with stdout_for_results() as stream:
        report = run_suite(
            _loaders(models, device, dtype, variant, speech_tokenizer),
            tasks,
            SuiteConfig(limit=limit, seed=seed),
            batch_size=batch,
            tell=lambda message: typer.echo(message, err=True),
        )
        text = json.dumps(report, ensure_ascii=False, allow_nan=False)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "suite.json").write_text(text + "\n", encoding="utf-8")
            (out / "suite.html").write_text(page(report), encoding="utf-8")
        print(text if as_json else plain(report), file=stream)


def _tasks(named: list[str], folder: Path | None) -> list[Task]:
    from spiritlm_core.errors import SpiritLMError
    from spiritlm_core.evaluate.suite.layouts import read_suite, read_task

    tasks = read_suite(folder) if folder is not None else []
    for given in named:
        name, _, where = (part.strip() for part in given.partition("="))
        if not name or not where:
            raise SpiritLMError(f"--task {given!r}: write NAME=FOLDER, for example --task sblimp=syntactic/")
        tasks += read_task(name, Path(where))
    if not tasks:
        raise SpiritLMError("name at least one task: --task NAME=FOLDER or --suite FOLDER (see evaluate build-suite)")
    return tasks


def _loaders(
    models: list[Path], device: str | None, dtype: str | None, variant: str | None, tokenizer: Path | None
) -> dict[str, Callable[[], SpiritLM]]:
    """Name of each model → what loads it; a speech tokenizer of all is loaded once."""
    from spiritlm_core.errors import SpiritLMError
    from spiritlm_core.lm.spirit import SpiritLM
    from spiritlm_core.speech_tokenizer import SpeechTokenizer

    if len(set(models)) < len(models):
        raise SpiritLMError("a model is named twice")
    if gone := [path for path in models if len(path.parts) > 1 and not path.is_dir()]:
        raise SpiritLMError(f"{gone[0]} is not a folder: name the folder of a model")  # not after an hour of the others
    shared: Any = None if tokenizer is None else SpeechTokenizer.from_pretrained(tokenizer, variant, device)
    short = [path.resolve().name for path in models]
    names = [name if short.count(name) == 1 else str(path) for name, path in zip(short, models, strict=True)]
    return {
        name: lambda path=path: SpiritLM.from_pretrained(path, device, dtype, variant, shared)  # type: ignore[misc]
        for name, path in zip(names, models, strict=True)
    }


def build_suite(
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder.")],
    voice: Annotated[
        list[str] | None, typer.Option(metavar="VOICE", help="Of espeak-ng; en-us and en-us+f3. May be repeated.")
    ] = None,
    text_only: Annotated[bool, typer.Option("--text-only", help="Without recordings.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make small open test sets for `spiritlm evaluate suite --suite DIR`, spoken by espeak-ng.

    Prints a line for each: its name, a tab, and the number of its pairs.
    """
    from spiritlm_core.evaluate.suite import build

    speak = None if text_only else build.Espeak()
    found = build.build_suite(out, speak, voice or build.VOICES)
    typer.echo(json.dumps(found) if as_json else "\n".join(f"{name}\t{count}" for name, count in found.items()))
