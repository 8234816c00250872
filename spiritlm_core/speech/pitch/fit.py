"""Fitting the pitch VQ-VAE on the F0 of the corpus."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from spiritlm_core.cores import all_cores, pick_device
from spiritlm_core.fit.checkpoints import Checkpoint
from spiritlm_core.fit.clips import Clip, perplexity, train_clips
from spiritlm_core.fit.job import FitJob
from spiritlm_core.fit.schedule import learning_rate_scale
from spiritlm_core.fit.steps import Steps, set_rate
from spiritlm_core.lake.stage import Progress, noting, within
from spiritlm_core.speech.pitch.coder import PitchCoder, contour
from spiritlm_core.speech.pitch.config import PITCH_HOP, PitchArchitecture, PitchConfig
from spiritlm_core.speech.pitch.f0 import melody
from spiritlm_core.speech.types import chunks

_UNVOICED_WEIGHT = 0.1
_F0_WEIGHT = 10.0  # squared octaves are small numbers
_VOICING_WEIGHT = 0.3
_DEAD = 0.1
_F0_SHARE = 0.5
Contours = list[NDArray[np.float32]]


def fit_pitch(config: PitchConfig, job: FitJob, progress: Progress) -> dict[str, Any]:
    """Track F0 of train speech, then fit; returns losses, and how well F0 comes back."""
    clips = train_clips(job.tables["audio"], config.max_minutes, config.seed)
    with all_cores():
        fit = _Fit(config, _contours(config, clips, job.work, progress))
        fit.run(job.work / "pitch.pt", progress)
    fit.coder.save(job.out)
    return fit.summary()


def _contours(config: PitchConfig, clips: list[Clip], work: Path, progress: Progress) -> Contours:
    """Contours of every piece, kept in `work` because tracking them is most of the time."""
    kept = Checkpoint(work / "contours.pt")
    if (state := kept.load(noting(progress))) is None:
        pieces = [piece for clip in clips for piece in chunks(clip.waveform)]
        state, device, model = {"contours": []}, pick_device(), PitchArchitecture.fitted(config)
        for done, piece in enumerate(pieces):
            state["contours"].append(torch.from_numpy(contour(melody(piece, device), len(piece), model)))
            if done % 50 == 0:
                progress(_F0_SHARE * done / len(pieces), f"F0 of utterance {done + 1}/{len(pieces)}")
        kept.save(state)
    return [track.numpy() for track in state["contours"]]


class _Fit:
    def __init__(self, config: PitchConfig, contours: Contours) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.contours = contours
        self.tape = np.concatenate(contours, axis=1)
        self.coder: PitchCoder = PitchCoder(PitchArchitecture.fitted(config)).to(pick_device())
        self.optimizer = torch.optim.AdamW(self.coder.parameters(), config.learning_rate, weight_decay=1e-4)
        self.averages: Any = torch.nn.Module()  # of each code: how often it is chosen, and the sum for what
        self.averages.register_buffer("counts", torch.zeros(config.codes, device=self.coder.codebook.device))
        self.averages.register_buffer("sums", torch.zeros_like(self.coder.codebook))

    def run(self, checkpoint: Path, progress: Progress) -> None:
        parts = {"coder": self.coder, "optimizer": self.optimizer, "averages": self.averages}
        self.steps = Steps(self.config.steps, parts, checkpoint)
        self.steps.run(self._step, within(progress, _F0_SHARE, 1))

    def _step(self, step: int) -> list[float]:
        """One update from randomness that depends on (seed, step) alone."""
        rng = np.random.default_rng([self.config.seed, step])
        batch = self._crops(rng)
        set_rate(self.optimizer, self.config.learning_rate * learning_rate_scale(step, self.config.steps))
        embedded = self.coder.train().embed(batch)
        flat = embedded.detach().flatten(0, 1)
        if step == 0:
            self._restart_codes(flat, rng)
        units = self.coder.nearest(embedded)
        quantized = self.coder.codebook[units]
        straight_through = embedded + (quantized - embedded).detach()
        loss = self._loss(self.coder.decode(straight_through), batch)
        loss = loss + self.config.commitment * ((embedded - quantized) ** 2).mean()
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self._move_codes(flat, units.flatten())
        self._restart_codes(flat, rng)
        return [loss.item()]

    def _crops(self, rng: np.random.Generator) -> torch.Tensor:
        length = min(self.config.crop_codes * PITCH_HOP, self.tape.shape[1])
        starts = rng.integers(0, self.tape.shape[1] - length + 1, self.config.batch_crops)
        crops = np.stack([self.tape[:, start : start + length] for start in starts])
        return torch.from_numpy(crops).to(self.coder.codebook.device)

    def _loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Squared error of F0, mostly where voiced, and cross-entropy of voicing."""
        voiced = target[:, 1]
        weight = voiced + _UNVOICED_WEIGHT * (1 - voiced)
        f0 = (weight * (output[:, 0] - target[:, 0]) ** 2).sum() / weight.sum()
        voicing = binary_cross_entropy_with_logits(output[:, 1], voiced)
        return _F0_WEIGHT * f0 + _VOICING_WEIGHT * voicing

    def _move_codes(self, embedded: torch.Tensor, units: torch.Tensor) -> None:
        """Moving averages of what each code was chosen for (arXiv 1711.00937, eq. 6-8)."""
        chosen = one_hot(units, self.config.codes).to(embedded.dtype)
        keep = self.config.decay
        averages = self.averages
        averages.counts = keep * averages.counts + (1 - keep) * chosen.sum(dim=0)
        averages.sums = keep * averages.sums + (1 - keep) * chosen.T @ embedded

    def _restart_codes(self, embedded: torch.Tensor, rng: np.random.Generator) -> None:
        """Put codes chosen less than a tenth of the average onto outputs of this batch (arXiv 2005.00341, §3.3)."""
        average, averages = len(embedded) / self.config.codes, self.averages
        dead = torch.nonzero(averages.counts < _DEAD * average).flatten()
        picked = torch.from_numpy(rng.integers(0, len(embedded), len(dead))).to(embedded.device)
        averages.counts[dead] = average
        averages.sums[dead] = embedded[picked] * average
        self.coder.codebook = averages.sums / averages.counts[:, None]

    def summary(self) -> dict[str, Any]:
        """Losses, code use and how well voiced F0 comes back, over all the speech that was read."""
        coder = self.coder.eval()
        units = [coder.encode(contour) for contour in self.contours]
        back = np.concatenate([coder.reconstruct(unit) for unit in units], axis=1)
        octaves, voiced = self.tape[0], self.tape[1] > 0.5
        error = 1200 * (back[0] - octaves)[voiced]
        spread = 1200 * (octaves[voiced] - octaves[voiced].mean()) if voiced.any() else np.zeros(1)
        every = np.concatenate(units)
        first, last = self.steps.ends
        return {
            "minutes": round(self.tape.shape[1] / 200 / 60, 2),
            "steps": self.steps.count,
            "loss_first": round(float(first[0]), 5),
            "loss_last": round(float(last[0]), 5),
            "codes_used": len(np.unique(every)),
            "perplexity": round(perplexity(every, self.config.codes), 1),
            "f0_rmse_cents": round(float(np.sqrt((error**2).mean())), 1) if voiced.any() else None,
            "f0_spread_cents": round(float(np.sqrt((spread**2).mean())), 1),
            "voicing_error": round(float(((back[1] > 0.5) != voiced).mean()), 4),
        }
