"""An encoder of one's own: this file, and one line in `FAMILIES` of `spiritlm_core/speech/encoders/registry.py`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import torch

from spiritlm_core.files import read_json
from spiritlm_core.speech.encoders.encoder import BlockEncoder
from spiritlm_core.speech.encoders.precision import Precision
from spiritlm_core.speech.mel import HOP, WINDOW, mel_energies, mel_filters, window_count


class MelEncoder(BlockEncoder):
    """Log-mel spectra, as many bands as ``config.json`` says; layer 2 is smoothed over three windows."""

    stride = HOP
    kind = "fp32"

    def __init__(self, bands: int, device: str) -> None:
        self.width, self.device = bands, torch.device(device)
        self._window, self._filters = torch.hann_window(WINDOW, device=device), mel_filters(bands, 512, device)

    @classmethod
    def load(cls, folder: Path, depth: int, device: str, precision: Precision) -> Self:
        return cls(int(read_json(folder / "config.json")["bands"]), device)

    @classmethod
    def layers_in(cls, folder: Path) -> int:
        return 2

    def frame_count(self, samples: int) -> int:
        return window_count(samples) + 1

    def frames(self, waveforms: list[torch.Tensor]) -> list[torch.Tensor]:
        """The last window counts twice: a unit is four windows, and its last samples make no fourth one."""
        return [self._spectrum(waveform) for waveform in waveforms]

    def blocks(self, frames: torch.Tensor, mask: torch.Tensor | None) -> Iterator[torch.Tensor]:
        yield frames
        present = torch.ones_like(frames[..., :1]) if mask is None else mask[..., None].to(frames.dtype)
        yield self._sum_of_three(frames) / self._sum_of_three(present)

    def _spectrum(self, waveform: torch.Tensor) -> torch.Tensor:
        mel = mel_energies(waveform.unfold(0, WINDOW, HOP), self._window, self._filters)
        return torch.cat([mel, mel[-1:]]).clamp(min=1e-8).log()

    def _sum_of_three(self, frames: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(frames, (0, 0, 1, 1))
        return padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
