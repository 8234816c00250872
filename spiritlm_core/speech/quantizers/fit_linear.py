"""Fitting the noise-robust quantizer (Gat et al. 2022, arXiv 2209.15483, section 3.2).

The teacher gives the units of clean speech. The student, three affine maps, sees the features of a changed
copy and learns the teacher's units, runs collapsed, with a CTC loss; its last class is the blank. From the second
iteration on, the student of the one before is the teacher. From random weights CTC first learns to say nothing but
blank, so that the first steps are on units frame by frame, which the known tempo of the copy allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from spiritlm_core.cores import pick_device
from spiritlm_core.fit.schedule import learning_rate_scale
from spiritlm_core.fit.steps import Steps, set_rate
from spiritlm_core.lake.stage import Progress, within
from spiritlm_core.metrics.distances import unit_errors
from spiritlm_core.speech.grid import FRAME, RECEPTIVE_FIELD, SHORTEST
from spiritlm_core.speech.quantizers.augment import augment
from spiritlm_core.speech.quantizers.config import QuantizerStageConfig
from spiritlm_core.speech.quantizers.kmeans import Frames, KMeans
from spiritlm_core.speech.quantizers.quantizer import SLOPE, LinearQuantizer, Quantizer

Waveforms = Sequence[NDArray[np.float32]]
Encoder = Callable[[Waveforms], list[Frames]]  # waveforms of at least 1280 samples to features of one layer

Labels = list[NDArray[np.int64]]

_PUT_BY = 20  # one piece in so many is not learned from, and used to judge
_MOST_JUDGED = 100
_IGNORED = -100


@dataclass(frozen=True)
class Speech:
    """Pieces of train speech and what the encoder makes of them."""

    pieces: Waveforms  # float32[T] each, of at least 1280 samples
    features: Sequence[Frames]  # float32[N, D] each
    encode: Encoder

    def part(self, *, judged: bool) -> Speech:
        """The pieces that are put by to judge, or the others; a single piece is both."""
        chosen = [i for i in range(len(self.pieces)) if (i % _PUT_BY == 0) is judged or len(self.pieces) == 1]
        chosen = chosen[:_MOST_JUDGED] if judged else chosen
        return Speech([self.pieces[i] for i in chosen], [self.features[i] for i in chosen], self.encode)


def fit_linear(
    teacher: KMeans, speech: Speech, config: QuantizerStageConfig, work: Path, progress: Progress
) -> tuple[LinearQuantizer, dict[str, Any]]:
    """Fit the quantizer; a killed fit goes on from its last checkpoint in `work` and ends with the same weights.

    The `teacher` is k-means on the same layer. The summary has losses, and the unit edit distance between put-by clips
    and their changed copies, edits per collapsed unit, for the teacher and for the student.
    """
    learned, losses = speech.part(judged=False), []
    current: KMeans | LinearQuantizer = teacher
    for iteration in range(config.linear.iterations):
        said = (current.assign(frames) for frames in learned.features)
        # A student says blank only where a whole piece is: there is nothing to learn from that.
        labels = [np.where(units == config.units, _IGNORED, units) for units in said]
        fit = _Fit(config, iteration, learned, labels)
        current, loss = fit.run(teacher.facts, work / f"linear-{iteration}.pt", progress)
        losses.append(loss)
    assert isinstance(current, LinearQuantizer)  # noqa: S101 - there is at least one iteration
    judged = speech.part(judged=True)
    distances = {"kmeans": edit_rate(teacher, judged, config), "linear": edit_rate(current, judged, config)}
    return current, {"iterations": losses, "unit_edit_distance": distances}


def edit_rate(quantizer: Quantizer, speech: Speech, config: QuantizerStageConfig) -> float:
    """Edits between the collapsed units of originals and of changed copies, per unit of the originals."""
    rngs = [np.random.default_rng([config.seed, 1, i]) for i in range(len(speech.pieces))]
    copies = [augment(piece, config.linear.augment, rng)[0] for piece, rng in zip(speech.pieces, rngs, strict=True)]
    units = [quantizer.assign(frames).tolist() for frames in speech.encode([_at_least(copy) for copy in copies])]
    return round(unit_errors([quantizer.assign(frames).tolist() for frames in speech.features], units).rate, 4)


class _Fit:
    """One iteration."""

    def __init__(self, config: QuantizerStageConfig, iteration: int, speech: Speech, labels: Labels) -> None:
        self.config, self.linear, self.iteration = config, config.linear, iteration
        self.speech, self.labels = speech, labels
        self.device = pick_device()
        self.scaler = _Scaler.of(speech.features)

    def run(
        self, facts: dict[str, Any], checkpoint: Path, progress: Progress
    ) -> tuple[LinearQuantizer, dict[str, float]]:
        """Take the steps that are left; the quantizer, and its first and last loss."""
        generator = torch.Generator().manual_seed(self.config.seed + self.iteration)
        student = make_student(self.speech.features[0].shape[1], self.config.size, generator).to(self.device)
        optimizer = torch.optim.AdamW(student.parameters(), self.linear.learning_rate, weight_decay=0.01)
        steps = Steps(self.linear.steps, {"model": student, "optimizer": optimizer}, checkpoint)
        begun, rounds = self.iteration, self.linear.iterations
        report = within(progress, begun / rounds, (begun + 1) / rounds)
        steps.run(partial(self._step, student, optimizer), report, f"robust quantizer, iteration {begun + 1}, ")
        ends = zip(("loss_first", "loss_last"), steps.ends, strict=True)
        quantizer = self.scaler.folded_into(student.cpu(), facts)
        return quantizer, {name: round(float(losses[0]), 4) for name, losses in ends}

    def _step(self, student: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> list[float]:
        """One update, from randomness that depends on (seed, iteration, step) alone."""
        rng = np.random.default_rng([self.config.seed, self.iteration, step])
        crops = [self._crop(rng) for _ in range(self.linear.batch_crops)]
        heard = self.speech.encode([waveform for waveform, _, _ in crops])
        frames = [self.scaler(torch.from_numpy(features)).to(self.device) for features in heard]
        scores = student(torch.cat(frames)).log_softmax(dim=-1).split([len(part) for part in frames])
        set_rate(optimizer, self.linear.learning_rate * learning_rate_scale(step, self.linear.steps))
        by_frame = step < self.linear.warm_up * self.linear.steps
        loss = _by_frame(scores, crops) if by_frame else _ctc(scores, [labels for _, labels, _ in crops])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        return [loss.item()]

    def _crop(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64], float]:
        """A changed crop float32[T], the teacher's units of the original int64[N], and the copy's tempo."""
        chosen = int(rng.integers(len(self.labels)))
        piece, labels = self.speech.pieces[chosen], self.labels[chosen]
        hop, count = self.config.hop, min(self.linear.crop_frames, len(labels))
        start = int(rng.integers(len(labels) - count + 1))
        crop = piece[start * hop : (start + count) * hop + RECEPTIVE_FIELD - FRAME]
        changed, tempo = augment(_at_least(crop), self.linear.augment, rng)
        return _at_least(changed), labels[start : start + count], tempo


def _by_frame(scores: Sequence[torch.Tensor], crops: Sequence[tuple[Any, NDArray[np.int64], float]]) -> torch.Tensor:
    """Cross-entropy with the unit that the original has at the same place."""
    targets = []
    for part, (_, labels, tempo) in zip(scores, crops, strict=True):
        places = np.minimum((np.arange(len(part)) * tempo).round().astype(np.int64), len(labels) - 1)
        targets.append(torch.from_numpy(labels[places]))
    together = torch.cat(list(scores))
    return functional.nll_loss(together, torch.cat(targets).to(together.device), ignore_index=_IGNORED)


def _ctc(scores: Sequence[torch.Tensor], labels: Sequence[NDArray[np.int64]]) -> torch.Tensor:
    """CTC with the collapsed units; a copy too short for its units does not count."""
    collapsed = [part[np.flatnonzero(np.diff(part, prepend=-1))] for part in labels]
    targets = [torch.from_numpy(part[part != _IGNORED]) for part in collapsed]
    padded = nn.utils.rnn.pad_sequence(list(scores))
    return functional.ctc_loss(
        padded,
        torch.cat(targets).to(padded.device),
        torch.tensor([len(part) for part in scores]),
        torch.tensor([len(part) for part in targets]),
        blank=padded.shape[-1] - 1,
        zero_infinity=True,
    )


def make_student(width: int, classes: int, generator: torch.Generator) -> nn.Sequential:
    """Three affine maps whose sizes go evenly from `width` to `classes`, as in the released Spirit LM."""
    gap = width - classes
    sizes = [width, width - gap // 4, width - gap // 2, classes]
    maps = [nn.Linear(sizes[i], sizes[i + 1]) for i in range(3)]
    for linear in maps:
        nn.init.kaiming_uniform_(linear.weight, a=SLOPE, generator=generator)
        nn.init.zeros_(linear.bias)
    return nn.Sequential(maps[0], nn.LeakyReLU(SLOPE), maps[1], nn.LeakyReLU(SLOPE), maps[2])


@dataclass(frozen=True)
class _Scaler:
    """Brings features to zero mean and unit variance while fitting; in the end it becomes part of the first map."""

    mean: torch.Tensor  # [D]
    scale: torch.Tensor  # [D]

    @classmethod
    def of(cls, features: Sequence[Frames]) -> _Scaler:
        frames = np.concatenate(features)
        return cls(torch.from_numpy(frames.mean(axis=0)), torch.from_numpy(frames.std(axis=0) + 1e-5))

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        return (frames - self.mean) / self.scale

    def folded_into(self, student: nn.Sequential, facts: dict[str, Any]) -> LinearQuantizer:
        maps = [module for module in student if isinstance(module, nn.Linear)]
        weights, biases = [m.weight.detach() for m in maps], [m.bias.detach() for m in maps]
        weights[0] = weights[0] / self.scale
        biases[0] = biases[0] - weights[0] @ self.mean
        return LinearQuantizer(tuple(w.numpy() for w in weights), tuple(b.numpy() for b in biases), facts)


def _at_least(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Padded with silence to the shortest waveform that has units."""
    return np.pad(waveform, (0, max(0, SHORTEST - len(waveform))))
