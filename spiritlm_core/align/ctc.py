"""A small CTC character model that aligns: log-mel in, one sharp spike per character out, 50 frames a second.

Its call looks like a Hugging Face CTC model's (``model(waveform).logits``), which is all that
``whisperx.align`` asks for. Frame ``f`` stands for the time ``f / 50`` s: the spike of a character is at the
start of its sound, that of ``|`` where a word ends, so the times WhisperX reads off need no correction.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from spiritlm_core.align.teacher import FRAME_RATE
from spiritlm_core.fit.stored import StoredConfig
from spiritlm_core.lake.schema import SAMPLE_RATE

MODEL_TYPE: Literal["spiritlm-ctc-aligner"] = "spiritlm-ctc-aligner"
FRAME = SAMPLE_RATE // FRAME_RATE
_WINDOW, _HOP, _FFT = 400, 160, 512


class CTCShape(StoredConfig):
    """What is needed to rebuild the module."""

    kind_of_model: ClassVar[str] = "an aligner"

    model_type: Literal["spiritlm-ctc-aligner"] = MODEL_TYPE
    language: str  # ISO 639-1 code
    characters: tuple[str, ...]  # output labels in order; the first is the blank, the second the word boundary
    channels: int = 160  # width of the hidden layers
    layers: int = 8  # number of residual convolution blocks
    mels: int = 64  # mel bands of the front end
    shift: float = 0.0  # constant delay of the spikes in seconds, removed in whole frames


class LogMel(nn.Module):
    """Log-mel energies, mean and variance normalised over the utterance, two 10 ms steps per frame."""

    def __init__(self, mels: int) -> None:
        super().__init__()
        self.window: Tensor
        self.bank: Tensor
        self.register_buffer("window", torch.hann_window(_WINDOW), persistent=False)
        bank = mel_filter_bank(
            _FFT // 2 + 1, mels, 60.0, 7800.0, SAMPLE_RATE, mel_scale="htk", triangularize_in_mel_space=True
        )
        self.register_buffer("bank", torch.from_numpy(bank.astype(np.float32)), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, ceil(samples / 320), 2 * mels)."""
        samples = waveform.shape[-1]
        frames = -(-samples // FRAME)
        margin = (_WINDOW - _HOP) // 2
        padded = nn.functional.pad(waveform, (margin, frames * FRAME - samples + margin))
        steps = padded.unfold(-1, _WINDOW, _HOP)
        steps = steps - steps.mean(-1, keepdim=True)
        power = torch.fft.rfft(steps * self.window, _FFT).abs().square()
        energy = power @ self.bank
        # The floor is 50 dB below the loudest band of the utterance: the level of the recording and of its
        # noise, even digital silence, then make no difference.
        mel = torch.log(energy + 1e-5 * energy.amax((1, 2), keepdim=True) + 1e-10)
        mean, std = mel.mean(1, keepdim=True), mel.std((1, 2), keepdim=True, correction=0)
        return ((mel - mean) / (std + 1e-3)).reshape(mel.shape[0], frames, -1)


class Block(nn.Module):
    """A residual block: dilated convolution over time, then a pointwise mix (channels last outside)."""

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` is (batch, frames, channels), `mask` (batch, frames, 1) with 1 where there is signal."""
        hidden = (self.norm(x) * mask).transpose(1, 2)
        hidden = nn.functional.gelu(self.conv(hidden)).transpose(1, 2)
        mixed: Tensor = self.dropout(self.mix(hidden))
        return x + mixed


class CTCAligner(nn.Module):
    """Front end and network; see the module's docstring for what its output means."""

    def __init__(self, shape: CTCShape, dropout: float = 0.1) -> None:
        super().__init__()
        self.shape = shape
        self.front_end = LogMel(shape.mels)
        self.enter = nn.Linear(2 * shape.mels, shape.channels)
        dilations = [2 ** (i % 4) for i in range(shape.layers)]
        self.blocks = nn.ModuleList(Block(shape.channels, dilation, dropout) for dilation in dilations)
        self.leave = nn.Sequential(nn.LayerNorm(shape.channels), nn.Linear(shape.channels, len(shape.characters)))

    @property
    def dictionary(self) -> dict[str, int]:
        """Character to label, as ``whisperx.align`` wants it."""
        return {character: label for label, character in enumerate(self.shape.characters)}

    def save(self, folder: Path) -> None:
        """Write it into `folder`."""
        self.shape.save(self, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote. Raises ModelReferenceError: the folder does not hold such a model."""
        return CTCShape.load(folder, cls)

    def forward(self, waveform: Tensor) -> SimpleNamespace:
        """``logits``, float32 (batch, frames, labels) at 50 frames a second, of float32 (batch, samples) at 16 kHz."""
        late = round(self.shape.shift * FRAME_RATE)  # frames; negative where labels come too early
        features = self.front_end(waveform)
        frames = features.shape[1]
        before, behind = features[:, :1].expand(-1, max(0, -late), -1), features[:, -1:].expand(-1, max(0, late), -1)
        emitted = self.emit(torch.cat([before, features, behind], dim=1))
        return SimpleNamespace(logits=emitted[:, max(0, late) : max(0, late) + frames])

    def emit(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of features (batch, frames, 2 * mels); `mask` (batch, frames) marks what is no padding."""
        keep = torch.ones(features.shape[:2]) if mask is None else mask
        keep = keep.to(features).unsqueeze(-1)
        hidden = self.enter(features)
        for block in self.blocks:
            hidden = block(hidden, keep)
        return self.leave(hidden)
