"""The discriminators and losses of HiFi-GAN (arXiv 2010.05646, section 2 and appendix A).

Discriminators are of any width; each loss is a mean over the items given.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.functional import l1_loss, leaky_relu, pad
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from spiritlm_core.speech.mel import mel_filters
from spiritlm_core.speech.vocoder.fit_config import DiscriminatorConfig

_SLOPE = 0.1
_SCALE_KERNELS = (15, 41, 41, 41, 41, 41, 5)
_SCALE_STRIDES = (1, 2, 2, 4, 4, 1, 1)
_SCALE_GROUPS = (1, 4, 16, 16, 16, 16, 1)
_SCALE_WIDTHS = (4, 4, 8, 16, 32, 32, 32)
_PERIOD_WIDTHS = (1, 4, 16, 32, 32)

Judgement = tuple[torch.Tensor, list[torch.Tensor]]
"""Scores float32[B, n], near 1 for a recording, and the outputs of all layers before."""


class PeriodDiscriminator(nn.Module):
    """Sees every `period`-th sample: the waveform as a picture that many samples wide."""

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, *(width * channels for width in _PERIOD_WIDTHS)]
        strides = [3, 3, 3, 3, 1]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (stride, 1), padding=(2, 0)))
            for a, b, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.last = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveforms: torch.Tensor) -> Judgement:
        """Judge float32[B, T]."""
        missing = -waveforms.shape[-1] % self.period
        whole = pad(waveforms[:, None], (0, missing), mode="reflect")
        return _judge(whole.view(len(whole), 1, -1, self.period), self.layers, self.last)


class ScaleDiscriminator(nn.Module):
    """Sees the waveform, or one that was averaged down, through strided and grouped convolutions."""

    def __init__(self, channels: int, norm: Callable[..., nn.Module]) -> None:
        super().__init__()
        widths = [1, *(width * channels for width in _SCALE_WIDTHS)]
        shapes = zip(widths, widths[1:], _SCALE_KERNELS, _SCALE_STRIDES, _SCALE_GROUPS, strict=False)
        self.layers = nn.ModuleList(
            norm(nn.Conv1d(a, b, kernel, stride, padding=kernel // 2, groups=groups))
            for a, b, kernel, stride, groups in shapes
        )
        self.last = norm(nn.Conv1d(widths[-1], 1, 3, padding=1))

    def forward(self, waveforms: torch.Tensor) -> Judgement:
        """Judge float32[B, T]."""
        return _judge(waveforms[:, None], self.layers, self.last)


class Discriminators(nn.Module):
    """One discriminator for each period, and one for each scale, the first of these under spectral norm."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.periods = nn.ModuleList(PeriodDiscriminator(period, config.channels) for period in config.periods)
        norms: list[Callable[..., nn.Module]] = [spectral_norm, *[weight_norm] * (config.scales - 1)]
        self.scales = nn.ModuleList(ScaleDiscriminator(config.channels, norm) for norm in norms)
        self.halve = nn.AvgPool1d(4, 2, padding=2)

    def forward(self, waveforms: torch.Tensor) -> list[Judgement]:
        """What each of them makes of float32[B, T]."""
        verdicts = [judge(waveforms) for judge in self.periods]
        for number, judge in enumerate(self.scales):
            waveforms = self.halve(waveforms) if number else waveforms
            verdicts.append(judge(waveforms))
        return verdicts


def _judge(x: torch.Tensor, layers: nn.ModuleList, last: nn.Module) -> Judgement:
    features = []
    for layer in layers:
        x = leaky_relu(layer(x), _SLOPE)
        features.append(x.float())
    return last(x).float().flatten(1), features


_FLOOR = 1e-5
_RESOLUTIONS = ((256, 24), (512, 48), (1024, 80), (2048, 128))
"""Samples of a window and mel bands; four windows overlap everywhere."""


class MelDistance(nn.Module):
    """Mean absolute difference of log-mel spectrograms, averaged over several resolutions.

    The paper has one resolution; several of them (as in arXiv 1910.11480) tell more of transients and of pitch.
    """

    def __init__(self) -> None:
        super().__init__()
        for window, bands in _RESOLUTIONS:
            self.register_buffer(f"filters_{window}", mel_filters(bands, window), persistent=False)
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)

    def forward(self, made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Of waveforms float32[B, T], each at least 1024 samples long."""
        distances = [l1_loss(self._mel(made, size), self._mel(wanted, size)) for size, _ in _RESOLUTIONS]
        return torch.stack(distances).mean()

    def _mel(self, waveforms: torch.Tensor, size: int) -> torch.Tensor:
        """float32[B, bands, frames]."""
        window: torch.Tensor = getattr(self, f"window_{size}")
        filters: torch.Tensor = getattr(self, f"filters_{size}")
        spectrum = torch.stft(waveforms, size, size // 4, window=window, return_complex=True)
        # The square root of 0 has no gradient.
        power = spectrum.real**2 + spectrum.imag**2
        magnitude = torch.sqrt(power + _FLOOR**2)
        return torch.log(filters.T @ magnitude + _FLOOR)


def discriminator_loss(real: Sequence[Judgement], made: Sequence[Judgement]) -> torch.Tensor:
    """Least squares (eq. 1): recordings to 1, what was made to 0; summed over discriminators."""
    losses = [((1 - r) ** 2).mean() + (m**2).mean() for (r, _), (m, _) in zip(real, made, strict=True)]
    return torch.stack(losses).sum()


def adversarial_loss(made: Sequence[Judgement]) -> torch.Tensor:
    """Least squares (eq. 2): what was made to 1; summed over discriminators."""
    return torch.stack([((1 - score) ** 2).mean() for score, _ in made]).sum()


def feature_loss(real: Sequence[Judgement], made: Sequence[Judgement]) -> torch.Tensor:
    """Mean absolute difference of each layer's outputs (eq. 4), summed over layers and discriminators."""
    pairs = [
        (r, m) for (_, wanted), (_, found) in zip(real, made, strict=True) for r, m in zip(wanted, found, strict=True)
    ]
    return torch.stack([l1_loss(m, r.detach()) for r, m in pairs]).sum()


def duration_loss(predicted: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Squared error of log(1 + frames), float32[B, N] against int64[B, N] (arXiv 2104.00355)."""
    return ((predicted - torch.log1p(frames.float())) ** 2).mean()
