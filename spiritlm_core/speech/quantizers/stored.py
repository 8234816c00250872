"""What quantizers have in common as files: float32 arrays in safetensors, and facts about their origin beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.speech.grid import SAMPLE_RATE


class StoredQuantizer:
    """A quantizer with `facts`, which say what it was fitted on: `layer`, and `rate` where that is not 25."""

    facts: dict[str, Any]

    @property
    def layer(self) -> int:
        """Layer of the encoder, counted from 1, whose features are quantized."""
        return int(self.facts["layer"])

    @property
    def hop(self) -> int:
        """Samples from one unit to the next."""
        return int(SAMPLE_RATE / self.facts.get("rate", 25.0))

    def write(self, arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
        """Write a safetensors file of float32 arrays; `facts` go into its metadata as JSON."""
        from safetensors.numpy import save_file

        plain = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}
        save_file(plain, path, metadata={"facts": json.dumps(self.facts, sort_keys=True)})
