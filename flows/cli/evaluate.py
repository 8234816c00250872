"""``spiritlm evaluate units`` and ``resynthesis``: parts of the pipeline judged on their own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from flows.cli.flow import artifact_folder, run_recipe
from spiritlm_core.cli.options import (
    DEFAULT_LAKE,
    DeviceOption,
    JsonOption,
    LakeOption,
    RecipeArgument,
    SetOption,
    SourceOption,
    VariantOption,
    answer,
    check_out,
    checked_language,
    fetched_reference,
    read_report,
)
from spiritlm_core.errors import RecipeError, SpiritLMError
from spiritlm_core.evaluate.config import ResynthesisConfig
from spiritlm_core.evaluate.rendering import write_report
from spiritlm_core.evaluate.resynthesis.stage import draw_clips, list_clips, train_clips
from spiritlm_core.evaluate.units.stage import table as table_of_units
from spiritlm_core.references.reference import as_reference, local_path, resolve
from spiritlm_core.speech.folder import TokenizerFolder
from spiritlm_core.speech.released.layout import Released
from spiritlm_core.speech.tokenizer import SpeechTokenizer


def units(
    recipe: RecipeArgument = "quickstart",
    lake: LakeOption = DEFAULT_LAKE,
    set_: SetOption = None,
    source: SourceOption = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME=FOLDER",
            help="One more speech tokenizer to compare: a folder, hf://… or file://…. May be repeated.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Also put units.json, units.md and units.html here.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the speech units of RECIPE with MFCC, its HuBERT iterations and given tokenizers, on held-out speech.

    Fits the unit models first where the lake lacks them. Transcripts are needed for phones only; without them the
    columns that do not need phones are still there.
    """
    check_out(out)
    overrides = [*(set_ or []), *map(_override, model or [])]

    def work() -> dict[str, Any]:
        result = _evaluate(recipe, lake, overrides, source or [])
        return {**result, "report": read_report(artifact_folder(lake, result, "unit_evaluation"), "units", out)}

    answer(work, _print, as_json=as_json)


def _print(result: dict[str, Any], stream: TextIO) -> None:
    print(table_of_units(result["report"]).plain(), file=stream)
    print(f"report: {result['units']}", file=stream)


def _override(model: str) -> str:
    """``NAME=FOLDER`` as a setting of the recipe. Raises RecipeError."""
    name, equals, where = (part.strip() for part in model.partition("="))
    if not (name and equals and where) or "." in name:
        raise RecipeError(f"--model {model!r}: write NAME=FOLDER, for example --model ours=published/speech_tokenizer")
    return f"unit_evaluation.models.{name}={json.dumps(as_reference(where))}"


def _evaluate(recipe: str, lake: str, overrides: list[str], sources: list[str]) -> dict[str, Any]:
    """Check everything that can be wrong before a server is started; then run the flow."""
    from flows.recipes import find_recipe, with_sources

    for reference in with_sources(find_recipe(recipe, overrides), sources).unit_evaluation.models.values():
        folder = resolve(reference).path
        if Released.find(folder) is None:
            TokenizerFolder.read(folder).models()
    return run_recipe("evaluate_units", recipe, lake, sources, overrides, until="unit_evaluation")


def resynthesis(
    recipe: Annotated[
        str | None, typer.Argument(metavar="[RECIPE]", help="Judge its tokenizer and vocoder on held-out rows.")
    ] = None,
    clips: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE", help="Recordings instead of a recipe's: a folder, clips.jsonl, librispeech:PATH …."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FOLDER",
            help="A speech tokenizer, or a model with one: a folder or hf://ORG/NAME. May be repeated.",
        ),
    ] = None,
    fit_on: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Train speech for a baseline without vocoder; may be that of --clips."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Put resynthesis.json, .md and .html (with players) here.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most clips, drawn by the seed; 40 unless given.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the draw of clips and of the intervals; 0 unless given.")
    ] = None,
    recogniser: Annotated[
        str | None,
        typer.Option(metavar="REF", help="faster-whisper model, hf://… or a folder, that listens."),
    ] = None,
    language: Annotated[
        str, typer.Option(callback=checked_language, help="Language of the --clips that name none.")
    ] = "en",
    variant: VariantOption = None,
    device: DeviceOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    set_: SetOption = None,
    source: SourceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn speech into units and back, and print how far the result is from the recording.

    WER and CER by a recogniser of its own, mel-cepstral distortion, F0, voicing, duration and speaker similarity: of
    each model with timing kept and with predicted durations, of the recording itself, and of plain Griffin-Lim.
    """
    check_out(out)
    heard_by = None if recogniser is None else fetched_reference(recogniser)
    given = {"clips": limit, "seed": seed, "recogniser": heard_by}
    settings = {name: value for name, value in given.items() if value is not None}
    if (recipe is None) == (clips is None):
        raise SpiritLMError("name either a RECIPE, or recordings with --clips")
    if clips and (set_ or source):
        raise SpiritLMError("--set and --source go with a RECIPE, not with --clips")
    if recipe and (fit_on or variant or device):
        raise SpiritLMError("--fit-on, --variant and --device go with --clips: a recipe has its own")
    models = _named(model or [])

    def work() -> dict[str, Any]:
        if recipe:
            return _of_recipe(recipe, lake, settings, set_ or [], source or [], models, out)
        return _of_clips(str(clips), settings, language, models, fit_on, variant, device, out)

    answer(work, _print_resynthesis, as_json=as_json)


def _print_resynthesis(report: dict[str, Any], stream: TextIO) -> None:
    from spiritlm_core.evaluate.resynthesis.figures import table

    print(table(report).plain(), file=stream)


def _named(models: list[str]) -> dict[str, Path]:
    """Name → folder; the name is the last part of the path if none is given."""
    folders: dict[str, Path] = {}
    for given in models:
        name, equals, where = given.partition("=")
        where = where if equals else given
        name, folder = name if equals else Path(where).resolve().name, local_path(where)
        if not name or name in folders:
            raise SpiritLMError(f"--model {given!r}: there is another {name!r}; write NAME=FOLDER to tell them apart")
        if not folder.is_dir():
            raise SpiritLMError(f"--model {given!r}: {folder} is not a folder: name a speech tokenizer's, or a model's")
        folders[name] = folder
    return folders


def _of_clips(
    clips: str,
    settings: dict[str, Any],
    language: str,
    models: dict[str, Path],
    fit_on: str | None,
    variant: str | None,
    device: str | None,
    out: Path | None,
) -> dict[str, Any]:
    """Judge `models` on the recordings of the source `clips`, without a lake; returns the report."""
    from spiritlm_core.evaluate.resynthesis.figures import page, table
    from spiritlm_core.evaluate.resynthesis.run import Judges, evaluate_resynthesis
    from spiritlm_core.evaluate.resynthesis.systems import systems_of

    config = ResynthesisConfig.of_options(**settings)
    judged = draw_clips(list_clips(clips, language), config)
    train = list(train_clips(list_clips(fit_on, language), judged, config)) if fit_on else []

    def tokenizers() -> Iterator[tuple[str, SpeechTokenizer]]:
        for name, folder in models.items():
            typer.echo(f"loading {name}" + (f", units of {len(train)} train clips" if train else ""), err=True)
            yield name, SpeechTokenizer.from_pretrained(folder, variant, device)

    def tell(done: float, message: str) -> None:
        typer.echo(f"{100 * done:3.0f} % {message}", err=True)

    systems = list(systems_of(tokenizers(), config.griffin_lim_iterations, train))
    found = evaluate_resynthesis(judged, systems, config, Judges.fetch(config), tell=tell)
    if out is not None:
        write_report(out, "resynthesis", found.report, table(found.report), page(found.report, found.sounds))
    return found.report


def _of_recipe(
    recipe: str,
    lake: str,
    settings: dict[str, Any],
    overrides: list[str],
    sources: list[str],
    models: dict[str, Path],
    out: Path | None,
) -> dict[str, Any]:
    """Run the flow; returns the report of its artifact."""
    asked = [f"resynthesis.{name}={json.dumps(value)}" for name, value in settings.items()]
    uris = {name: json.dumps(folder.absolute().as_uri()) for name, folder in models.items()}
    changes = [*overrides, *asked, *(f"resynthesis.models.{name}={uri}" for name, uri in uris.items())]
    result = run_recipe("evaluate_resynthesis", recipe, lake, sources, changes, until="resynthesis")
    return read_report(artifact_folder(lake, result, "resynthesis"), "resynthesis", out)
