"""``spiritlm export gguf`` and ``onnx``: models in the formats of other runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from spiritlm_core.cli.options import JsonOption, ModelArgument, check_file, check_out
from spiritlm_core.files import check_new


def gguf(
    model: ModelArgument,
    quantize: Annotated[
        Literal["f32", "f16", "q8_0", "q4_k_m"],
        typer.Option(help="Type of the weights; q4_k_m asks llama.cpp, which the package cyllama brings."),
    ] = "f16",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file to write, else MODEL-TYPE.gguf in this folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the language model of MODEL with its speech tokens as a .gguf file, which llama.cpp and Ollama run."""
    from spiritlm_core.export.gguf import export_gguf
    from spiritlm_core.lm.model.folder import locate

    folder, _ = locate(model)
    target = out or Path(f"{folder.absolute().name}-{quantize}.gguf")
    check_file(target)
    size = export_gguf(folder, target, quantize)
    about = {"file": str(target), "bytes": size}
    typer.echo(json.dumps(about) if as_json else f"{target}\t{size / 1e6:.1f} MB")


def onnx(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder of a model or of a speech tokenizer, or hf://ORG/NAME.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new or empty folder.")],
) -> None:
    """Write the unit encoder, its quantizer and the vocoder of MODEL as ONNX files, and print their names."""
    from spiritlm_core.export.onnx import export_onnx
    from spiritlm_core.references.reference import local_path

    check_out(out)
    check_new(out)
    for name in export_onnx(local_path(model), out):
        typer.echo(out / name)
