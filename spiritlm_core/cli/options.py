"""Options that several commands share, and how results are given: on standard output alone, reports in folders."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from spiritlm_core.errors import LakeError, SpiritLMError
from spiritlm_core.language import language_code

if TYPE_CHECKING:
    from spiritlm_core.lm.generate.spirit import SpiritLM


def checked_lake(uri: str) -> str:
    """`uri`, which can be that of a lake; before anything is started. Raises LakeError."""
    from spiritlm_core.lake.lake import Lake

    lake = Lake(uri)
    if "://" not in uri and Path(uri, "config.json").is_file() and not lake.is_begun():
        raise LakeError(f"{uri} is the folder of a model, with its config.json: name another folder with --lake")
    return uri


def begun_lake(uri: str) -> str:
    """`uri`, which is that of a lake. Raises LakeError: there is none."""
    from spiritlm_core.lake.lake import Lake

    lake = Lake(checked_lake(uri))
    if not lake.is_begun():
        raise LakeError(
            f"there is no lake at {lake.uri}: name one with --lake or SPIRITLM_LAKE, or start one with "
            f"`spiritlm run quickstart --lake {lake.uri}`"
        )
    return uri


def no_lake(uri: str) -> str:
    """What is said, without an error, where a lake is yet to be started."""
    return f"there is no lake at {uri} yet: a run starts it"


_LAKE: dict[str, Any] = {
    "metavar": "URI",
    "envvar": "SPIRITLM_LAKE",
    "help": "The lake: a folder, file://… or s3://bucket/prefix.",
}
LakeOption = Annotated[str, typer.Option("--lake", callback=checked_lake, **_LAKE)]
BegunLakeOption = Annotated[str, typer.Option("--lake", callback=begun_lake, **_LAKE)]
LakeArgument = Annotated[str, typer.Argument(callback=begun_lake, **_LAKE | {"metavar": "LAKE"})]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]
JsonLinesOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line, and nothing else.")]
RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe, or path of a .yaml file.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. --set lm.steps=100. May be repeated."),
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="SOURCE",
        help="Recordings to use instead of the recipe's: a folder, s3://…, prompts:en, librispeech:PATH, "
        "ljspeech:PATH, manifest:FILE, lhotse:PATH. Synthetic speech made of transcripts stays. May be repeated.",
    ),
]
VariantOption = Annotated[
    str | None,
    typer.Option(
        "--variant",
        metavar="base|expressive",
        help="Speech tokens: of base the sounds alone, of expressive pitch and style, too; by default the latter where "
        "it has its models.",
    ),
]
SpeakerOption = Annotated[
    str | None,
    typer.Option("--speaker", metavar="NUMBER|NAME", help="Voice to speak with, instead of the vocoder's default."),
]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Folder of a model, ours or a released one, or hf://ORG/NAME.")
]
AudioArgument = Annotated[list[str], typer.Argument(metavar="AUDIO…", help="Audio files; - for one on standard input.")]
RecordingsArgument = Annotated[
    list[str], typer.Argument(metavar="FILE…", help="Recordings; - for one on standard input.")
]
CheckpointsOption = Annotated[
    Path | None,
    typer.Option(metavar="ROOT", envvar="SPIRITLM_CHECKPOINTS_DIR", help="Folder of the released checkpoints."),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Folder of a published, fitted or imported model, or hf://ORG/NAME, instead of --checkpoints.",
    ),
]
ShotsOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help='Solved examples, one {"audio"|"speech": …, "text": …} a line.')
]
DeviceOption = Annotated[str | None, typer.Option(help="Where to compute, such as cpu or cuda; a GPU if there is one.")]
DEFAULT_LAKE = "lake"


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn."""

    temperature: Annotated[
        float, typer.Option(min=0.0, help="How freely tokens are drawn; 0 takes the most likely one.")
    ] = 0.0
    top_p: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Draw among the likeliest tokens of this share of the probability.")
    ] = 1.0
    top_k: Annotated[int, typer.Option(min=0, help="Draw among so many of the likeliest tokens; 0: among all.")] = 0
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn at random.")] = 0


@dataclass(frozen=True)
class Loading:
    """How a model is loaded."""

    variant: VariantOption = None
    speech_tokenizer: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Speech tokenizer and vocoder, instead of those beside the model."),
    ] = None
    device: DeviceOption = None
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Type of the weights; float32 unless given, bfloat16 for released models."),
    ] = None

    def load(self, model: str) -> SpiritLM:
        """The model. Raises SpiritLMError: it cannot be loaded."""
        from spiritlm_core.lm.generate.spirit import SpiritLM

        return SpiritLM.from_pretrained(model, **asdict(self))


def checked_language(name: str) -> str:
    """The code of a language. Raises BadParameter if `name` is none."""
    try:
        return language_code(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def answer(
    work: Callable[[], dict[str, Any]], show: Callable[[dict[str, Any], TextIO], None], *, as_json: bool
) -> None:
    """Do `work` and print its result, as JSON or as `show` does; under ``seconds`` it says how long that took."""
    began = time.monotonic()
    with stdout_for_results() as out:
        result = work()
        result["seconds"] = round(time.monotonic() - began, 1)
        if as_json:
            print(json.dumps(result, ensure_ascii=False, allow_nan=False), file=out)
        else:
            show(result, out)


@contextmanager
def stdout_for_results() -> Iterator[TextIO]:
    """Standard output for the result alone: whatever a library prints meanwhile goes to standard error."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(saved), "w", encoding="utf-8") as out:
            yield out
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def check_out(out: Path | None) -> None:
    """Say now, and not after an hour of work, that a report cannot be put into `out`. Raises SpiritLMError."""
    if out is None:
        return
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise SpiritLMError(f"--out {out}: {there} is not a folder")
    if not os.access(there, os.W_OK):
        raise SpiritLMError(f"--out {out}: nothing can be written into {there}")


def check_file(out: Path) -> None:
    """Say now that nothing can be written to the file `out`, or make its folder. Raises SpiritLMError."""
    if out.is_dir():
        raise SpiritLMError(f"--out {out} is a folder: name a file in it")
    check_out(out.absolute().parent)
    out.absolute().parent.mkdir(parents=True, exist_ok=True)


def read_report(folder: Path, name: str, out: Path | None) -> dict[str, Any]:
    """``NAME.json`` of an artifact, whose files ``NAME.*`` are copied into `out`."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob(f"{name}.*")):
            shutil.copyfile(path, out / path.name)
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def fetched_reference(given: str) -> str:
    """A judge, named by a reference or a folder, as a reference; fetched now, and not after an hour of work.

    Raises ModelReferenceError: nothing is there.
    """
    from spiritlm_core.references.reference import as_reference, resolve

    reference = as_reference(given)
    resolve(reference)
    return reference


def fetched_model(given: str) -> Path:
    """The files of a model, named by a reference or a folder. Raises ModelReferenceError: nothing is there."""
    from spiritlm_core.references.reference import as_reference, resolve

    return resolve(as_reference(given)).path
