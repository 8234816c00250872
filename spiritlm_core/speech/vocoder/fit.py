"""Fitting a vocoder on the units and the recordings of a corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from spiritlm_core.cores import all_cores, pick_device
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.fit.clips import FIT_INPUT
from spiritlm_core.fit.job import UnitFit
from spiritlm_core.lake.stage import Progress, Resources, TableInput
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.grid import FRAME
from spiritlm_core.speech.vocoder.config import VocoderConfig
from spiritlm_core.speech.vocoder.fit_config import VocoderStageConfig
from spiritlm_core.speech.vocoder.tape import UNIT_COLUMNS, Encode, read_tape

if TYPE_CHECKING:
    from spiritlm_core.fit.ranks import Ranks
    from spiritlm_core.speech.vocoder.model import VocoderModel

LOSSES_FILE = "losses.json"
_CURVE_POINTS = 500
_CLIPS_AT_ONCE = 32


class VocoderFit(UnitFit):
    """Fits a vocoder; the artifact is the folder that ``Vocoder.load`` takes.

    Roles: those that ``VocoderFitConfig.roles`` names. Where torch.distributed is initialised, its processes share
    the work; `work` must be one folder that all of them see.
    """

    name: ClassVar[str] = "vocoder"
    about: ClassVar[str] = "units back to speech"
    version: ClassVar[int] = 1
    inputs: ClassVar[tuple[TableInput, ...]] = (
        FIT_INPUT,
        TableInput("units", UNIT_COLUMNS),
    )
    shared: ClassVar[bool] = True
    resources: ClassVar[Resources] = Resources(num_cpus=1.0)
    config: VocoderStageConfig

    def build(self, tables: Mapping[str, TableView], out: Path, work: Path, progress: Progress) -> dict[str, Any]:
        """Train; a killed build goes on from its last checkpoint and ends with the same weights.

        Returns seconds of speech, parameters, voices, and the losses of the first and the last twentieth of the steps.
        Raises SpiritLMError: there is too little speech with units, a role is missing, or a loss is not finite.
        """
        from spiritlm_core.fit.ranks import Ranks
        from spiritlm_core.speech.vocoder.generators import fold_weight_norm
        from spiritlm_core.speech.vocoder.training import Training, checkpoint_in

        if missing := [role for role in self.config.fit.roles if role not in self.models]:
            raise SpiritLMError(
                f"the vocoder's fit needs the {missing[0]} of the units: give its folder in that role, or set "
                "vocoder.shifts to 1 and vocoder.unit_init to random"
            )
        progress(0.0, "reading recordings and units")
        ranks = Ranks.current()
        with all_cores():
            encode = self._encoder(ranks) if self.config.fit.shifts > 1 else None
            tape, architecture = read_tape(tables["audio"], tables["units"], self.config, encode)
            training = Training(self.config.fit, tape, self._initial(architecture), ranks)
            training.run(checkpoint_in(work), progress)
        if ranks.first:
            fold_weight_norm(training.model.generator)
            training.model.save(out)
            _write_losses(training.history, out / LOSSES_FILE)
        ranks.barrier()
        parameters = sum(parameter.numel() for parameter in training.model.parameters())
        about = {"train_seconds": round(tape.frames * FRAME / 16_000, 1), "parameters": parameters}
        return {**about, "speakers": architecture.speakers, **_summary(training.history)}

    def _encoder(self, ranks: Ranks) -> Encode:
        """HuBERT units of waveforms; each process encodes its share."""
        from spiritlm_core.speech.extractor import UnitExtractor

        models = {role: self.models[role] for role in ("hubert", "quantizer")}
        extractor = UnitExtractor(models, precision=self.config.precision)

        def encode(waveforms: list[NDArray[np.float32]]) -> list[NDArray[np.int16]]:
            own = waveforms[ranks.rank :: ranks.size]
            groups = (own[start : start + _CLIPS_AT_ONCE] for start in range(0, len(own), _CLIPS_AT_ONCE))
            return ranks.gather([units.hubert for group in groups for units in extractor.encode(group)])

        return encode

    def _initial(self, architecture: VocoderConfig) -> VocoderModel:
        import torch

        from spiritlm_core.speech.vocoder.generators import HifiganGenerator, normalise_weights
        from spiritlm_core.speech.vocoder.model import VocoderModel, start_from_centres

        with torch.random.fork_rng():
            torch.manual_seed(self.config.fit.seed)
            model = VocoderModel(architecture)
        if self.config.fit.unit_init == "centres":
            start_from_centres(model.get_parameter("embeddings.units.weight"), self.models["quantizer"])
        if isinstance(model.generator, HifiganGenerator):
            normalise_weights(model.generator)
        return model.to(pick_device())


def _summary(history: list[list[float]]) -> dict[str, Any]:
    from spiritlm_core.speech.vocoder.training import LOSSES

    window = max(1, len(history) // 20)
    first, last = np.mean(history[:window], axis=0), np.mean(history[-window:], axis=0)
    ends = {"first": dict(zip(LOSSES, first, strict=True)), "last": dict(zip(LOSSES, last, strict=True))}
    rounded = {end: {name: round(float(value), 4) for name, value in losses.items()} for end, losses in ends.items()}
    return {"steps": len(history), **rounded}


def _write_losses(history: list[list[float]], path: Path) -> None:
    """Every so many steps a line, averaged since the one before."""
    from spiritlm_core.speech.vocoder.training import LOSSES

    every = max(1, len(history) // _CURVE_POINTS)
    rows = [history[start : start + every] for start in range(0, len(history), every)]
    curve = {name: [round(float(np.mean(row, axis=0)[i]), 5) for row in rows] for i, name in enumerate(LOSSES)}
    path.write_text(json.dumps({"steps_per_point": every, **curve}) + "\n", encoding="utf-8")
