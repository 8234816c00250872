"""Waveforms to speech tokens with one call, from the ``speech_tokenizer/`` folder of a published model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.lake.schema import SAMPLE_RATE
from spiritlm_core.tokens.speech import Streams, UnitStreams, from_string, merge_streams, to_string

if TYPE_CHECKING:
    from spiritlm_core.units.extractor import UnitExtractor
    from spiritlm_core.units.types import Units

ROLES = ("hubert", "quantizer", "pitch", "style")


class SpeechTokenizer:
    """Turns speech into units and into strings such as ``[St81][Pi13][Hu78]``.

    Example:
        >>> tokenizer = SpeechTokenizer.from_pretrained("published")  # doctest: +SKIP
        >>> tokenizer.to_string(tokenizer.encode(waveform, 16_000))  # doctest: +SKIP
    """

    def __init__(self, extractor: UnitExtractor) -> None:
        self._extractor = extractor

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | None = None) -> Self:
        """Load a published model's folder, or the ``speech_tokenizer/`` in it.

        Args:
            folder: holds ``hubert/``, ``quantizer/`` and, for Expressive models, ``pitch/`` and ``style/``.
            device: where to compute; a GPU if there is one.

        Raises:
            ModelReferenceError: a model is missing or cannot be loaded.
        """
        from spiritlm_core.units.config import UnitsConfig
        from spiritlm_core.units.extractor import UnitExtractor

        root = Path(folder)
        root = root / "speech_tokenizer" if (root / "speech_tokenizer").is_dir() else root
        models = {role: root / role for role in ROLES if (root / role).exists()}
        units = _read(root / "config.json").get("units")
        config = UnitsConfig.model_validate(units) if units else None
        return cls(UnitExtractor(models, config, device=device))

    def encode(self, waveform: ArrayLike, sample_rate: int, speaker: str | None = None) -> Units:
        """Units of one waveform; see :meth:`encode_batch`."""
        (units,) = self.encode_batch([waveform], sample_rate, [speaker])
        return units

    def encode_batch(
        self, waveforms: Sequence[ArrayLike], sample_rate: int, speakers: Sequence[str | None] | None = None
    ) -> list[Units]:
        """Units of several waveforms; the result for one does not depend on the others.

        Args:
            waveforms: float[T] mono or float[channels, T] (averaged), in [-1, 1].
            sample_rate: in hertz; resampled to 16 kHz if need be.
            speakers: who speaks, where known; style is relative to the speaker's own average.

        Raises:
            SpiritLMError: a waveform is not float[T] or float[channels, T], or has no finite values.
        """
        return self._extractor.encode([_mono_16k(wave, sample_rate) for wave in waveforms], speakers)

    @staticmethod
    def to_string(units: UnitStreams) -> str:
        """Units as speech tokens: runs collapsed, streams merged by time."""
        return to_string(merge_streams(units))

    @staticmethod
    def from_string(string: str) -> Streams:
        """Speech tokens back to streams, one entry per HuBERT token."""
        return from_string(string)


def _mono_16k(waveform: ArrayLike, sample_rate: int) -> np.ndarray:
    samples = np.asarray(waveform)
    if not np.issubdtype(samples.dtype, np.floating) or samples.ndim not in (1, 2):
        raise SpiritLMError(f"a waveform is float[T] or float[channels, T], not {samples.dtype}{list(samples.shape)}")
    if not np.isfinite(samples).all():
        raise SpiritLMError("the waveform holds values that are not finite")
    mono = samples.astype(np.float32) if samples.ndim == 1 else samples.astype(np.float32).mean(axis=0)
    if sample_rate == SAMPLE_RATE:
        return mono
    from scipy.signal import resample_poly

    divisor = int(np.gcd(SAMPLE_RATE, sample_rate))
    resampled = resample_poly(mono, SAMPLE_RATE // divisor, sample_rate // divisor)
    return np.asarray(resampled, dtype=np.float32)


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelReferenceError(f"{path}: not the configuration of a speech tokenizer: {error}") from error
    return values
