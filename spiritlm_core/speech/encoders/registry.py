"""The families of encoders. A new one is a file beside this one, and one line here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spiritlm_core.errors import ModelReferenceError, RecipeError
from spiritlm_core.files import read_json
from spiritlm_core.speech.grid import FRAME

if TYPE_CHECKING:
    from spiritlm_core.speech.encoders.encoder import BlockEncoder
    from spiritlm_core.speech.encoders.precision import Precision

FAMILIES = {
    "hubert": "spiritlm_core.speech.encoders.waveform:HubertEncoder",
    "wav2vec2": "spiritlm_core.speech.encoders.waveform:Wav2Vec2Encoder",
    "wavlm": "spiritlm_core.speech.encoders.waveform:WavLMEncoder",
    "wav2vec2-bert": "spiritlm_core.speech.encoders.w2v_bert:W2vBertEncoder",
    "whisper": "spiritlm_core.speech.encoders.whisper:WhisperEncoder",
}
"""What ``config.json`` calls ``model_type`` → a subclass of `encoder.BlockEncoder`."""


WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.bin")
"""Files of weights, the first two of which may also be several that an index lists."""


def check_folder(folder: Path) -> None:
    """Look whether an encoder lies in `folder`, without reading it.

    Raises ModelReferenceError: it is no model folder, of a family that is not known, or there are no weights.
    """
    family_name(folder)
    if not any((folder / f"{name}{end}").is_file() for name in WEIGHTS for end in ("", ".index.json")):
        raise ModelReferenceError(f"{folder} holds no weights ({', '.join(WEIGHTS)}): copy or download it whole")


def family_name(folder: Path) -> str:
    """The family of the encoder in `folder`, as in `FAMILIES`.

    A folder of CTranslate2 has a ``model.bin``, and a ``config.json`` that does not say, or none; of encoders, it
    holds Whisper alone.

    Raises ModelReferenceError: it is no model folder, or of a family that is not known.
    """
    config, is_converted = folder / "config.json", (folder / "model.bin").is_file()
    try:
        kind = None if is_converted and not config.exists() else read_json(config).get("model_type")
    except ModelReferenceError as error:
        raise ModelReferenceError(f"{folder} is not a Hugging Face model folder: {error}") from error
    if kind is None and is_converted:
        kind = "whisper"
    if kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ModelReferenceError(f"{folder} holds a model of type {kind}, not an encoder of speech units: {known}")
    return str(kind)


def _family(folder: Path) -> type[BlockEncoder]:
    from spiritlm_core.lake.plan import load_class

    return load_class(FAMILIES[family_name(folder)])


def layer_count(folder: Path) -> int:
    """Number of layers of the encoder in `folder`. Raises ModelReferenceError: it is no encoder."""
    return _family(folder).layers_in(folder)


def load_encoder(
    folder: Path, depth: int, device: str = "cpu", precision: Precision = "exact", hop: int = FRAME
) -> BlockEncoder:
    """Load the encoder in `folder` (Hugging Face, or for Whisper also CTranslate2) on `device`, whatever its family.

    Layers above `depth`, counted from 1, are not even loaded. Frames are `hop` samples apart: 640, or a multiple of it.

    Raises ModelReferenceError: not an encoder of a known family, not at 16 kHz, not on the grid of the units, too few
    layers, or weights missing.
    """
    if depth > (layers := layer_count(folder)):
        raise ModelReferenceError(f"{folder} has {layers} layers, but layer {depth} is wanted")
    encoder = _family(folder).load(folder, depth, device, precision)
    encoder.hop = hop
    return encoder


def chosen_layer(folder: Path, asked: int | None, field: str) -> int:
    """The layer to use of the encoder in `folder`, counted from 1: the one asked for, or the usual one of its family.

    Raises RecipeError: there are fewer layers than `asked`, which the setting `field` says; ModelReferenceError: it is
    no encoder.
    """
    layers = layer_count(folder)
    if asked is not None and asked > layers:
        raise RecipeError(f"{field} is {asked}, but the encoder has {layers} layers ({folder})")
    return asked or max(1, round(_family(folder).usual_layer * layers))
