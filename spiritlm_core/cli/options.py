"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def checked_lake(uri: str) -> str:
    """`uri`, which can be that of a lake; before anything is started. Raises LakeError."""
    from spiritlm_core.lake.lake import Lake

    Lake(uri)
    return uri


LakeOption = Annotated[
    str,
    typer.Option(
        "--lake",
        metavar="URI",
        envvar="SPIRITLM_LAKE",
        callback=checked_lake,
        help="The lake: a folder, file://… or s3://bucket/prefix.",
    ),
]
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
        help="Streams of speech; expressive where its models are there, else base.",
    ),
]
SpeakerOption = Annotated[
    str | None,
    typer.Option("--speaker", metavar="NUMBER|NAME", help="Voice to speak with, instead of the vocoder's default."),
]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a model, ours or a released one.")]
AudioArgument = Annotated[list[str], typer.Argument(metavar="AUDIO…", help="Audio files; - for one on standard input.")]
RecordingsArgument = Annotated[
    list[str], typer.Argument(metavar="FILE…", help="Recordings; - for one on standard input.")
]
CheckpointsOption = Annotated[
    Path | None,
    typer.Option(metavar="ROOT", envvar="SPIRITLM_CHECKPOINTS_DIR", help="Folder of the released checkpoints."),
]
ModelOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of a published, fitted or imported model, instead of --checkpoints."),
]
ShotsOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help='Solved examples, one {"audio"|"speech": …, "text": …} a line.')
]
TemperatureOption = Annotated[
    float, typer.Option(min=0.0, help="How freely tokens are drawn; 0 takes the most likely one.")
]
TopPOption = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Draw among the likeliest tokens of this share of the probability.")
]
TopKOption = Annotated[int, typer.Option(min=0, help="Draw among so many of the likeliest tokens; 0: among all.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of what is drawn at random.")]
SpeechTokenizerOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Speech tokenizer and vocoder, instead of those beside the model."),
]
DeviceOption = Annotated[str | None, typer.Option(help="Where to compute, such as cpu or cuda; a GPU if there is one.")]
DtypeOption = Annotated[str | None, typer.Option(metavar="float32|bfloat16|float16", help="Type of the weights.")]
DEFAULT_LAKE = "lake"


def checked_language(name: str) -> str:
    """The code of a language. Raises BadParameter if `name` is none."""
    from spiritlm_core.language import language_code

    try:
        return language_code(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
