"""The released files to the one layout of speech tokenizers, once."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.files import cache_folder, file_sha256, new_folder
from spiritlm_core.speech.folder import CONFIG, write_config
from spiritlm_core.speech.released.layout import Released, Variant

_CONVERTER = b"released speech tokenizer 1"  # changes whenever the same files would be converted differently
_LAYOUT = 3  # of the folders in the cache; older ones are left alone
_WEIGHTS = {
    "hubert": "model.safetensors",
    "quantizer": "linear.safetensors",
    "pitch": "model.safetensors",
    "style": "model.safetensors",
    "vocoder": "model.safetensors",
}


@dataclass(frozen=True)
class Imported:
    """A converted speech tokenizer."""

    folder: Path
    variant: Variant
    digest: str
    fresh: bool  # whether it was converted now; otherwise it was there already


def import_checkpoints(root: Path, out: Path | None, variant: str | None = None, *, force: bool = False) -> Imported:
    """Convert the released checkpoints in `root` (or in its ``speech_tokenizer``) into `out`, whole or not at all.

    Without `out` they are converted into the cache, into a folder named by their content. The variant is expressive
    where its files are there, else base, if not given. `out` is not there yet, is empty, or holds the same conversion
    (then nothing is done); with `force` whatever is there is replaced.

    Raises ModelReferenceError: a file is missing, damaged, hostile or does not fit its configuration, or `out` holds
    something else.
    """
    released = Released.find(root)
    if released is None:
        lacks = "has no speech_tokenizer/hubert_25hz" if root.is_dir() else "is not a folder"
        raise ModelReferenceError(f"{root} {lacks}: name the folder of the checkpoints")
    chosen = released.variant(variant)
    sources = {name: file_sha256(path) for name, path in released.files(chosen).items()}
    digest = _digest_of(chosen, sources)
    out = out or cache_folder() / "released" / f"{chosen}-{digest[:16]}-{_LAYOUT}"
    if _digest_at(out) == digest:
        return Imported(out, chosen, digest, fresh=False)
    _check_target(out, root, force=force)
    _put(released, chosen, {"digest": digest, "files": sources}, out)
    return Imported(out, chosen, digest, fresh=True)


def _digest_of(variant: Variant, files: dict[str, str]) -> str:
    """One name for a conversion: of what, by which version of the converter."""
    lines = [_CONVERTER, variant.encode(), *(f"{name} {files[name]}".encode() for name in sorted(files))]
    return hashlib.sha256(b"\n".join(lines)).hexdigest()


def _digest_at(out: Path) -> str | None:
    """What the folder `out` was converted from, if it is whole."""
    try:
        record = json.loads((out / CONFIG).read_text(encoding="utf-8"))
        whole = all((out / role / _WEIGHTS[role]).is_file() for role in record["models"])
        return str(record["source"]["digest"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_target(out: Path, root: Path, *, force: bool) -> None:
    if out.resolve() == root.resolve() or out.resolve() in root.resolve().parents:
        raise ModelReferenceError(f"{out} holds the checkpoints themselves: name another folder to write to")
    empty = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if not empty and not force:
        raise ModelReferenceError(
            f"{out} exists and is not this conversion: name another folder, or replace it (--force)"
        )


def _put(released: Released, variant: Variant, source: dict[str, Any], out: Path) -> None:
    try:
        with new_folder(out) as fresh:
            _convert(released, variant, source, fresh)
    except OSError:
        if _digest_at(out) != source["digest"]:  # another process was quicker, with the same result
            raise


def _convert(released: Released, variant: Variant, source: dict[str, Any], out: Path) -> None:
    from spiritlm_core.speech.released.hubert import convert_hubert, convert_quantizer
    from spiritlm_core.speech.released.pitch import convert_pitch
    from spiritlm_core.speech.released.style import convert_style
    from spiritlm_core.speech.released.vocoder import convert_vocoder

    folder = released.folder
    layer, width = convert_hubert(folder / "hubert_25hz" / "mhubert_base_25hz.pt", out / "hubert")
    quantizer = folder / "hubert_25hz" / "L11_quantizer_500.pt"
    convert_quantizer(quantizer, out / "quantizer", layer, width)
    if variant == "expressive":
        convert_pitch(folder / "vqvae_f0_quantizer", out / "pitch")
        convert_style(folder / "style_encoder_w2v2", out / "style")
    if vocoder := released.vocoder(variant):
        convert_vocoder(vocoder, out / "vocoder")
    write_config(out, origin="released", variant=variant, source=source)
    for path in out.rglob("*.safetensors"):
        path.chmod(0o644)  # the library writes them for the owner alone
