"""Writing waveforms as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def write_wav(path: Path, waveform: NDArray[np.float32]) -> Path:
    """Write float32[samples] in [-1, 1] at 16 kHz as 16-bit PCM, with the folder it is to lie in.

    Raises:
        SpiritLMError: the file cannot be written.
    """
    import soundfile

    from spiritlm_core.audio.codec import to_int16
    from spiritlm_core.errors import SpiritLMError
    from spiritlm_core.lake.schema import SAMPLE_RATE

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, to_int16(waveform), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    except (OSError, soundfile.LibsndfileError) as error:
        raise SpiritLMError(f"{path} cannot be written: {error}") from error
    return path
