"""Where the released files lie, and which of them a variant needs. Imports nothing heavy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spiritlm_core.errors import ModelReferenceError

Variant = Literal["base", "expressive"]

ROOT_VARIABLE = "SPIRITLM_CHECKPOINTS_DIR"  # environment variable that names the folder of the released checkpoints

LANGUAGE_MODELS = "spiritlm_model"  # folder of the language models, below the root

_FILES: dict[str, tuple[str, ...]] = {
    "base": ("hubert_25hz/mhubert_base_25hz.pt", "hubert_25hz/L11_quantizer_500.pt"),
    "expressive": (
        "vqvae_f0_quantizer/config.yaml",
        "vqvae_f0_quantizer/model.pt",
        "style_encoder_w2v2/config.json",
        "style_encoder_w2v2/pytorch_model.bin",
    ),
}
_VOCODERS: dict[str, str] = {"base": "hifigan_spiritlm_base", "expressive": "hifigan_spiritlm_expressive_w2v2"}


@dataclass(frozen=True)
class Released:
    """The folder ``speech_tokenizer`` of the released checkpoints."""

    folder: Path

    @classmethod
    def find(cls, root: Path) -> Released | None:
        """The folder in (or at) `root`, or None if `root` is something else."""
        for folder in (root / "speech_tokenizer", root):
            if (folder / "hubert_25hz").is_dir():
                return cls(folder)
        return None

    def variant(self, wanted: str | None) -> Variant:
        """The variant `wanted`; where none is, expressive if any of its parts is there.

        Raises ModelReferenceError: there is no such variant.
        """
        if wanted is None:
            parts = {name.split("/")[0] for name in _FILES["expressive"]}
            return "expressive" if any((self.folder / part).is_dir() for part in parts) else "base"
        return checked_variant(wanted)

    def vocoder(self, variant: Variant) -> Path | None:
        """The folder of the variant's vocoder, if it is there: units can be had without."""
        folder = self.folder / _VOCODERS[variant]
        return folder if folder.is_dir() else None

    def files(self, variant: Variant) -> dict[str, Path]:
        """The files that a variant is made of, by their name below `folder`; those of the vocoder if it is there.

        Raises ModelReferenceError: one is missing.
        """
        names = _FILES["base"] + (_FILES["expressive"] if variant == "expressive" else ())
        if vocoder := self.vocoder(variant):
            names += (f"{vocoder.name}/config.json", f"{vocoder.name}/generator.pt")
        for name in names:
            if not (self.folder / name).is_file():
                hint = ", or use the base variant" if name in _FILES["expressive"] else ""
                hint = ", or move its folder away to do without a vocoder" if name.startswith("hifigan") else hint
                raise ModelReferenceError(f"{self.folder / name} is missing: complete the download{hint}")
        return {name: self.folder / name for name in names}


def find_language_model(root: Path, variant: Variant | None) -> Path | None:
    """The folder of a released language model in (or at) `root`, or None if `root` is something else.

    `root` may also hold both, or be the root of the released checkpoints; expressive is taken where it is there, else
    base.

    Raises ModelReferenceError: the `variant` asked for is not there.
    """
    if (root / "tokenizer.model").is_file() and (root / "config.json").is_file():
        return root
    for parent in (root / LANGUAGE_MODELS, root):
        names = {name: parent / f"spirit-lm-{name}-7b" for name in ("expressive", "base")}
        there = [folder for folder in names.values() if folder.is_dir()]
        if there and variant is not None and not names[variant].is_dir():
            raise ModelReferenceError(f"{names[variant]} is missing: complete the download, or use the other variant")
        if there:
            return names[variant] if variant is not None else there[0]
    return None


def checked_variant(wanted: str) -> Variant:
    """`wanted`, if there is such a variant; ModelReferenceError if not."""
    variants: dict[str, Variant] = {"base": "base", "expressive": "expressive"}
    if wanted not in variants:
        raise ModelReferenceError(f"there is no variant {wanted!r}: it is base or expressive")
    return variants[wanted]


def default_root() -> Path:
    """Where released checkpoints are looked for: ``$SPIRITLM_CHECKPOINTS_DIR``, else ``checkpoints``."""
    return Path(os.environ.get(ROOT_VARIABLE) or "checkpoints")
