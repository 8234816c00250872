"""Fitting the pitch VQ-VAE on the F0 of the corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.cores import all_cores, pick_device
from spiritlm_core.fit.checkpoints import Checkpoint
from spiritlm_core.fit.clips import Clip, perplexity, train_clips
from spiritlm_core.fit.job import UnitFit
from spiritlm_core.fit.schedule import learning_rate_scale
from spiritlm_core.lake.stage import Progress, noting
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.pitch.config import PitchArchitecture, PitchConfig
from spiritlm_core.speech.pitch.f0 import melody
from spiritlm_core.speech.types import chunks

if TYPE_CHECKING:
    import torch

    from spiritlm_core.speech.pitch.coder import PitchCoder

_CHECKPOINT_EVERY = 200
_UNVOICED_WEIGHT = 0.1
_F0_WEIGHT = 10.0  # squared octaves are small numbers
_VOICING_WEIGHT = 0.3
_DEAD = 0.1
_F0_SHARE = 0.5
Contours = list[NDArray[np.float32]]


class PitchFit(UnitFit):
    """Fits the VQ-VAE of F0 and voicing; the artifact is ``config.json`` and ``model.safetensors``."""

    name = "pitch"
    about = "VQ-VAE over F0"
    version = 2
    config: PitchConfig

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Track F0 of train speech, then fit; a killed build goes on from its last checkpoint."""
        clips = train_clips(tables["audio"], self.config.max_minutes, self.config.seed)
        with all_cores():
            contours = self._contours(clips, work, progress)
            fit = _Fit(self.config, contours)
            fit.run(Checkpoint(work / "pitch.pt"), progress)
        fit.coder.save(out)
        return fit.summary()

    def _contours(self, clips: list[Clip], work: Path, progress: Progress) -> Contours:
        """Contours of every piece, kept in `work` because tracking them is most of the time."""
        from spiritlm_core.speech.pitch.coder import contour

        path = work / "contours.npz"
        pieces = [piece for clip in clips for piece in chunks(clip.waveform)]
        if not path.exists():
            contours, device, model = [], pick_device(), PitchArchitecture.fitted(self.config)
            for done, piece in enumerate(pieces):
                tracked = melody(piece, device)
                contours.append(contour(tracked, len(piece), model))
                if done % 50 == 0:
                    progress(_F0_SHARE * done / len(pieces), f"F0 of utterance {done + 1}/{len(pieces)}")
            work.mkdir(parents=True, exist_ok=True)
            np.savez(path.with_suffix(".tmp.npz"), *contours)
            path.with_suffix(".tmp.npz").replace(path)
        with np.load(path) as stored:
            return [stored[f"arr_{i}"] for i in range(len(pieces))]


class _Fit:
    def __init__(self, config: PitchConfig, contours: Contours) -> None:
        import torch

        from spiritlm_core.speech.pitch.coder import PitchCoder

        torch.manual_seed(config.seed)
        self.config = config
        self.contours = contours
        self.tape = np.concatenate(contours, axis=1)
        self.coder: PitchCoder = PitchCoder(PitchArchitecture.fitted(config)).to(pick_device())
        self.optimizer = torch.optim.AdamW(self.coder.parameters(), config.learning_rate, weight_decay=1e-4)
        self.counts = torch.zeros(config.codes, device=self.coder.codebook.device)
        self.sums = torch.zeros_like(self.coder.codebook)
        self.losses: list[float] = []

    def run(self, checkpoint: Checkpoint, progress: Progress) -> None:
        if state := checkpoint.load(noting(progress)):
            self._restore(state)
        for step in range(len(self.losses), self.config.steps):
            self.losses.append(self._step(step))
            if (step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == self.config.steps:
                checkpoint.save(self._state())
                done = (step + 1) / self.config.steps
                progress(_F0_SHARE + (1 - _F0_SHARE) * done, f"step {step + 1}, loss {self.losses[-1]:.4f}")

    def _state(self) -> dict[str, Any]:
        averages = {"counts": self.counts, "sums": self.sums, "losses": self.losses}
        return {"coder": self.coder.state_dict(), "optimizer": self.optimizer.state_dict(), **averages}

    def _restore(self, state: dict[str, Any]) -> None:
        self.coder.load_state_dict(state["coder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.counts = state["counts"].to(self.counts.device)
        self.sums = state["sums"].to(self.sums.device)
        self.losses = list(state["losses"])

    def _step(self, step: int) -> float:
        """One update from randomness that depends on (seed, step) alone."""
        import torch

        rng = np.random.default_rng([self.config.seed, step])
        batch = self._crops(rng)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * learning_rate_scale(step, self.config.steps)
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
        return float(loss.item())

    def _crops(self, rng: np.random.Generator) -> torch.Tensor:
        import torch

        from spiritlm_core.speech.pitch.coder import HOP

        length = min(self.config.crop_codes * HOP, self.tape.shape[1])
        starts = rng.integers(0, self.tape.shape[1] - length + 1, self.config.batch_crops)
        crops = np.stack([self.tape[:, start : start + length] for start in starts])
        return torch.from_numpy(crops).to(self.coder.codebook.device)

    def _loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Squared error of F0, mostly where voiced, and cross-entropy of voicing."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        voiced = target[:, 1]
        weight = voiced + _UNVOICED_WEIGHT * (1 - voiced)
        f0 = (weight * (output[:, 0] - target[:, 0]) ** 2).sum() / weight.sum()
        voicing = binary_cross_entropy_with_logits(output[:, 1], voiced)
        loss: torch.Tensor = _F0_WEIGHT * f0 + _VOICING_WEIGHT * voicing
        return loss

    def _move_codes(self, embedded: torch.Tensor, units: torch.Tensor) -> None:
        """Moving averages of what each code was chosen for (arXiv 1711.00937, eq. 6-8)."""
        import torch

        chosen = torch.nn.functional.one_hot(units, self.config.codes).to(embedded.dtype)
        keep = self.config.decay
        self.counts = keep * self.counts + (1 - keep) * chosen.sum(dim=0)
        self.sums = keep * self.sums + (1 - keep) * chosen.T @ embedded

    def _restart_codes(self, embedded: torch.Tensor, rng: np.random.Generator) -> None:
        """Put codes chosen less than a tenth of the average onto outputs of this batch (arXiv 2005.00341, §3.3)."""
        import torch

        average = len(embedded) / self.config.codes
        dead = torch.nonzero(self.counts < _DEAD * average).flatten()
        picked = torch.from_numpy(rng.integers(0, len(embedded), len(dead))).to(embedded.device)
        self.counts[dead] = average
        self.sums[dead] = embedded[picked] * average
        self.coder.codebook = self.sums / self.counts[:, None]

    def summary(self) -> dict[str, Any]:
        """Losses, code use and how well voiced F0 comes back, over all the speech that was read."""
        coder = self.coder.eval()
        units = [coder.encode(contour) for contour in self.contours]
        back = np.concatenate([coder.reconstruct(unit) for unit in units], axis=1)
        octaves, voiced = self.tape[0], self.tape[1] > 0.5
        error = 1200 * (back[0] - octaves)[voiced]
        spread = 1200 * (octaves[voiced] - octaves[voiced].mean()) if voiced.any() else np.zeros(1)
        every = np.concatenate(units)
        return {
            "minutes": round(self.tape.shape[1] / 200 / 60, 2),
            "steps": len(self.losses),
            "loss_first": round(float(np.mean(self.losses[:20])), 5),
            "loss_last": round(float(np.mean(self.losses[-20:])), 5),
            "codes_used": len(np.unique(every)),
            "perplexity": round(perplexity(every, self.config.codes), 1),
            "f0_rmse_cents": round(float(np.sqrt((error**2).mean())), 1) if voiced.any() else None,
            "f0_spread_cents": round(float(np.sqrt((spread**2).mean())), 1),
            "voicing_error": round(float(((back[1] > 0.5) != voiced).mean()), 4),
        }
