"""Training of the fitted aligner: spikes where a teacher gave times, CTC everywhere else, whose delay is measured."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spiritlm_core.align.config import AlignerFitConfig
from spiritlm_core.align.ctc import CTCAligner
from spiritlm_core.align.whisperx import Aligner
from spiritlm_core.errors import Rejection
from spiritlm_core.fit.steps import Steps, set_rate
from spiritlm_core.lake.stage import Progress

CHECKPOINT = "aligner.pt"


@dataclass(frozen=True)
class Item:
    """One training utterance."""

    features: Tensor  # float32 (frames, 2 * mels), normalised log-mel
    labels: np.ndarray  # int64, its label sequence
    spikes: np.ndarray | None  # int64 (frames,), a label per frame, or None where no teacher gave times


def train(
    model: CTCAligner,
    items: list[Item],
    config: AlignerFitConfig,
    work: Path,
    report: Progress,
) -> float:
    """Train `model` in place for ``config.steps`` steps, resuming from `work`; returns the loss at their end."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.01)
    steps = Steps(config.steps, {"model": model, "optimizer": optimizer}, work / CHECKPOINT)
    groups = _groups(items, round(config.batch_seconds * 50))

    def step(number: int) -> list[float]:
        torch.manual_seed(config.seed * 1_000_003 + number)  # dropout and masks depend on the step alone
        set_rate(optimizer, config.learning_rate * _schedule(number / config.steps))
        loss = _loss(model, _batch(items, groups, config.seed, number), config)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return [float(loss.detach())]

    model.train()
    steps.run(step, report, "aligner, ")
    model.eval()
    return float(steps.ends[1][0])


def _schedule(fraction: float) -> float:
    """One rise over the first tenth, then a cosine down to a hundredth."""
    if fraction < 0.1:
        return 0.05 + 0.95 * fraction / 0.1
    return 0.01 + 0.99 * 0.5 * (1.0 + float(np.cos(np.pi * (fraction - 0.1) / 0.9)))


def _batch(items: list[Item], groups: list[list[int]], seed: int, step: int) -> list[Item]:
    """The batch of a step: a function of the seed and the step, so that a resumed run sees the same."""
    epoch, place = divmod(step, len(groups))
    order = np.random.default_rng([seed, epoch]).permutation(len(groups))
    return [items[index] for index in groups[order[place]]]


def _groups(items: list[Item], frames: int) -> list[list[int]]:
    """Indices of utterances of like length, about `frames` frames a group."""
    groups: list[list[int]] = [[]]
    for index in sorted(range(len(items)), key=lambda i: (len(items[i].features), i)):
        longest = len(items[index].features)
        if groups[-1] and longest * (len(groups[-1]) + 1) > frames:
            groups.append([])
        groups[-1].append(index)
    return groups


def _loss(model: CTCAligner, batch: list[Item], config: AlignerFitConfig) -> Tensor:
    features, mask = _padded([item.features for item in batch])
    logits = model.emit(_masked(features, config), mask)
    taught = [i for i, item in enumerate(batch) if item.spikes is not None]
    flat = [i for i, item in enumerate(batch) if item.spikes is None]
    loss = torch.zeros(())
    if taught:
        loss = loss + _spike_loss(logits, batch, taught)
    if flat:
        loss = loss + _ctc_loss(logits, batch, flat) * config.ctc_weight
    return loss


def _padded(features: list[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(x) for x in features])
    padded = nn.utils.rnn.pad_sequence(features, batch_first=True)
    return padded, torch.arange(padded.shape[1])[None, :] < lengths[:, None]


def _masked(features: Tensor, config: AlignerFitConfig) -> Tensor:
    """SpecAugment (arXiv 1904.08779), lightly: one band of frequencies per utterance set to the mean."""
    width = int(features.shape[2] // 2 * config.mask_share)
    if width == 0:
        return features
    bands = features.shape[2] // 2
    start = torch.randint(0, bands - width + 1, (len(features), 1, 1))
    size = torch.randint(0, width + 1, (len(features), 1, 1))
    index = torch.arange(features.shape[2])[None, None, :] % bands
    return features.masked_fill((index >= start) & (index < start + size), 0.0)


def _spike_loss(logits: Tensor, batch: list[Item], rows: list[int]) -> Tensor:
    """Cross entropy per frame, summed over the frames and divided by the number of spikes."""
    total, spikes = torch.zeros(()), 0
    for row in rows:
        target = torch.from_numpy(batch[row].spikes)
        total = total + nn.functional.cross_entropy(logits[row, : len(target)], target, reduction="sum")
        spikes += int((target != 0).sum())
    return total / max(spikes, 1)


def _ctc_loss(logits: Tensor, batch: list[Item], rows: list[int]) -> Tensor:
    """CTC per label."""
    log_probs = logits[rows].log_softmax(-1).transpose(0, 1)
    labels = [torch.from_numpy(batch[row].labels) for row in rows]
    lengths = torch.tensor([len(x) for x in labels])
    frames = torch.tensor([len(batch[row].features) for row in rows])
    loss = nn.functional.ctc_loss(log_probs, torch.cat(labels), frames, lengths, reduction="sum", zero_infinity=True)
    return loss / lengths.sum().clamp(min=1)


_STEP = 160  # samples; 10 ms
_QUIET = 0.04  # seconds of silence that an utterance must begin with to be of use
_LEAST = 8  # utterances; a median of fewer is noise


def delay(aligner: Aligner, utterances: Iterable[tuple[np.ndarray, Sequence[str]]]) -> float:
    """Median delay in seconds of the first spike behind the onset of speech; 0 where it cannot be measured.

    CTC is free to put a spike anywhere in or after its sound, and a flat start ends up some tens of milliseconds late.
    Where an utterance begins after silence the energy says when speech starts; no other labels are needed.
    """
    offsets = []
    for waveform, words in utterances:
        onset = speech_onset(waveform)
        if onset is None:
            continue
        try:
            first = aligner.align(aligner.hear(waveform), words)[0]
        except Rejection:
            continue
        if first is not None:
            offsets.append(first.start - onset)
    return float(np.median(offsets)) if len(offsets) >= _LEAST else 0.0


def speech_onset(waveform: np.ndarray) -> float | None:
    """When the energy first rises above the noise, in seconds; None if there is no silence before.

    The threshold is 30 % of the way from the noise floor (5th percentile of the energy in dB) to the loud
    frames (95th), but at most 35 dB below them.
    """
    edges = loud_edges(waveform)
    return edges[0] if edges is not None and edges[0] >= _QUIET else None


def loud_edges(waveform: np.ndarray) -> tuple[float, float] | None:
    """Start and end in seconds of what is louder than the noise; None for less than 30 ms of audio."""
    frames = len(waveform) // _STEP
    if frames < 3:
        return None
    power = np.square(waveform[: frames * _STEP].reshape(frames, _STEP), dtype=np.float64).mean(1)
    level = 10 * np.log10(power + 1e-10)
    floor, loud = np.quantile(level, 0.05), np.quantile(level, 0.95)
    above = np.flatnonzero(level > max(loud - 35.0, floor + 0.3 * (loud - floor)))
    return (float(above[0]) * 0.01, float(above[-1] + 1) * 0.01) if len(above) else None
