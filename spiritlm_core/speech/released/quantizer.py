"""``L11_quantizer_500.pt`` to ``linear.safetensors``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from spiritlm_core.speech.quantizers.linear import LINEAR_FILE, MAPS, LinearQuantizer
from spiritlm_core.speech.released.reading import CheckpointError, Described, describe, field, read_archive, take


class QuantizerModelConfig(Described):
    """``model_cfg``: units without the blank, and the width of the features (twice)."""

    vocab_size: int = Field(ge=1, le=500)
    dim: int = Field(ge=1, le=16_384)
    upstream_dim: int = Field(ge=1, le=16_384)

    @property
    def sizes(self) -> list[int]:
        """Widths from the features to the classes, of which the last is the blank."""
        excess = self.upstream_dim - (self.vocab_size + 1)
        return [self.dim, self.dim - excess // 4, self.dim - excess // 2, self.vocab_size + 1]


def convert_quantizer(path: Path, out: Path, layer: int, width: int) -> None:
    """Write the folder `out` for features of so many values from that HuBERT layer.

    Raises:
        CheckpointError: The file is damaged, hostile, or does not fit its configuration or this HuBERT.
    """
    content = read_archive(path)
    config = describe(QuantizerModelConfig, field(content, "model_cfg", path), f"{path}: model_cfg")
    if config.dim != width:
        raise CheckpointError(f"{path}: model_cfg.dim is {config.dim}, but the HuBERT beside it has {width} features")
    sizes = config.sizes
    if min(sizes) < 1:
        raise CheckpointError(f"{path}: model_cfg makes layers of {sizes} values, which cannot be")
    expected: dict[str, tuple[int, ...]] = {}
    for i, name in enumerate(MAPS):
        expected |= {f"{name}.weight": (sizes[i + 1], sizes[i]), f"{name}.bias": (sizes[i + 1],)}
    tensors = {
        name: tensor.numpy() for name, tensor in take(field(content, "model_weight", path), expected, path).items()
    }
    first, second, third = MAPS
    weights = (tensors[f"{first}.weight"], tensors[f"{second}.weight"], tensors[f"{third}.weight"])
    biases = (tensors[f"{first}.bias"], tensors[f"{second}.bias"], tensors[f"{third}.bias"])
    out.mkdir(parents=True)
    LinearQuantizer(weights, biases, {"layer": layer}).save(out / LINEAR_FILE)
