"""A small CTC character model that aligns: log-mel in, one sharp spike per character out, 50 frames a second.

Its call looks like a Hugging Face CTC model's (``model(waveform).logits``), which is all that
``whisperx.align`` asks for. Frame ``f`` stands for the time ``f / 50`` s: the spike of a character is at the
start of its sound, that of ``|`` where a word ends, so the times WhisperX reads off need no correction.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spiritlm_core.align.teacher import FRAME_RATE
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.lake.schema import SAMPLE_RATE

MODEL_TYPE = "spiritlm-ctc-aligner"
FRAME = SAMPLE_RATE // FRAME_RATE
_WINDOW, _HOP, _FFT = 400, 160, 512


@dataclass(frozen=True)
class CTCShape:
    """What is needed to rebuild the module."""

    language: str  # ISO 639-1 code
    characters: tuple[str, ...]  # output labels in order; the first is the blank, the second the word boundary
    channels: int = 160  # width of the hidden layers
    layers: int = 8  # number of residual convolution blocks
    mels: int = 64  # mel bands of the front end
    shift: float = 0.0  # constant delay of the spikes in seconds, removed in whole frames


@dataclass(frozen=True)
class Emission:
    """Answer of the model; the attribute that ``whisperx.align`` reads."""

    logits: Tensor  # float32, (batch, frames, labels)


class LogMel(nn.Module):
    """Log-mel energies, mean and variance normalised over the utterance, two 10 ms steps per frame."""

    def __init__(self, mels: int) -> None:
        super().__init__()
        self.window: Tensor
        self.bank: Tensor
        self.register_buffer("window", torch.hann_window(_WINDOW), persistent=False)
        self.register_buffer("bank", torch.from_numpy(mel_bank(mels)), persistent=False)

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

    def forward(self, waveform: Tensor) -> Emission:
        """Emissions of waveforms of equal length.

        Args:
            waveform: float32, (batch, samples), 16 kHz.

        Returns:
            Logits at 50 frames a second.
        """
        late = round(self.shape.shift * FRAME_RATE)  # frames; negative where labels come too early
        features = self.front_end(waveform)
        frames = features.shape[1]
        before, behind = features[:, :1].expand(-1, max(0, -late), -1), features[:, -1:].expand(-1, max(0, late), -1)
        emitted = self.emit(torch.cat([before, features, behind], dim=1))
        return Emission(emitted[:, max(0, late) : max(0, late) + frames])

    def emit(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of features (batch, frames, 2 * mels); `mask` (batch, frames) marks what is no padding."""
        keep = torch.ones(features.shape[:2]) if mask is None else mask
        keep = keep.to(features).unsqueeze(-1)
        hidden = self.enter(features)
        for block in self.blocks:
            hidden = block(hidden, keep)
        logits: Tensor = self.leave(hidden)
        return logits


def mel_bank(mels: int) -> np.ndarray:
    """Triangular filters on the HTK mel scale between 60 and 7800 Hz, float32 (257, mels)."""

    def to_mel(hertz: np.ndarray) -> np.ndarray:
        return np.asarray(2595.0 * np.log10(1.0 + hertz / 700.0))

    low, high = to_mel(np.array([60.0, 7800.0])).tolist()
    edges = np.linspace(low, high, mels + 2)
    bins = to_mel(np.linspace(0.0, SAMPLE_RATE / 2, _FFT // 2 + 1))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bank: np.ndarray = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    return bank


def save_aligner(model: CTCAligner, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` into `folder`."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    config = {"model_type": MODEL_TYPE, **asdict(model.shape)}
    (folder / "config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def load_aligner(folder: Path) -> CTCAligner:
    """The model that :func:`save_aligner` wrote, in evaluation mode.

    Raises SpiritLMError if the folder holds something else.
    """
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.pop("model_type", None) != MODEL_TYPE:
        raise SpiritLMError(f"{folder}: not an aligner fitted by this project (model_type is not {MODEL_TYPE})")
    config["characters"] = tuple(config["characters"])
    model = CTCAligner(CTCShape(**config))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()
