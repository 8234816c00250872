"""Fitting a vocoder on the units and the recordings of a corpus."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spiritlm_core.cores import all_cores, large_products, pick_device
from spiritlm_core.errors import SpiritLMError
from spiritlm_core.fit.job import FitJob
from spiritlm_core.fit.ranks import Ranks
from spiritlm_core.fit.steps import Steps
from spiritlm_core.lake.stage import Progress
from spiritlm_core.speech.extractor import UnitExtractor
from spiritlm_core.speech.grid import FRAME
from spiritlm_core.speech.vocoder.config import VocoderConfig
from spiritlm_core.speech.vocoder.fit_config import VocoderStageConfig
from spiritlm_core.speech.vocoder.generators import HifiganGenerator, fold_weight_norm, normalise_weights
from spiritlm_core.speech.vocoder.model import VocoderModel, start_from_centres
from spiritlm_core.speech.vocoder.tape import Encode, read_tape
from spiritlm_core.speech.vocoder.training import LOSSES, Training

LOSSES_FILE = "losses.json"
_CURVE_POINTS = 500
_CLIPS_AT_ONCE = 32


def fit_vocoder(config: VocoderStageConfig, job: FitJob, progress: Progress) -> dict[str, Any]:
    """Train a vocoder; a killed fit goes on from its last checkpoint and ends with the same weights.

    Returns seconds of speech, parameters, voices, and the losses of the first and the last twentieth of the steps.
    Raises SpiritLMError: there is too little speech with units, a role is missing, or a loss is not finite.
    """
    if missing := [role for role in config.fit.roles if role not in job.models]:
        raise SpiritLMError(
            f"the vocoder's fit needs the {missing[0]} of the units: give its folder in that role, or set "
            "vocoder.shifts to 1 and vocoder.unit_init to random"
        )
    progress(0.0, "reading recordings and units")
    precision = config.fit.precision
    # on GPUs, bf16 only where it is asked for: what it does to a vocoder there was not measured
    ranks = Ranks.current(precision="fp32" if precision == "auto" and pick_device() == "cuda" else precision)
    with all_cores(), large_products():
        encode = _encoder(config, job.models, ranks) if config.fit.shifts > 1 else None
        tape, architecture = read_tape(job.tables["audio"], job.tables["units"], config, encode)
        training = Training(config.fit, tape, _initial(config, job.models, architecture), ranks)
        steps = training.run(job.work, progress)
    if ranks.first:
        fold_weight_norm(training.model.generator)
        training.model.save(job.out)
        _write_losses(steps.history, job.out / LOSSES_FILE)
    ranks.barrier()
    parameters = sum(parameter.numel() for parameter in training.model.parameters())
    about = {"train_seconds": round(tape.frames * FRAME / 16_000, 1), "parameters": parameters}
    return {**about, "speakers": architecture.speakers, **_summary(steps)}


def _encoder(config: VocoderStageConfig, models: Mapping[str, Path], ranks: Ranks) -> Encode:
    """HuBERT units of waveforms; each process encodes its share."""
    extractor = UnitExtractor({role: models[role] for role in ("hubert", "quantizer")}, precision=config.precision)

    def encode(waveforms: list[NDArray[np.float32]]) -> list[NDArray[np.int16]]:
        own = waveforms[ranks.rank :: ranks.size]
        groups = (own[start : start + _CLIPS_AT_ONCE] for start in range(0, len(own), _CLIPS_AT_ONCE))
        return ranks.gather([units.hubert for group in groups for units in extractor.encode(group)])

    return encode


def _initial(config: VocoderStageConfig, models: Mapping[str, Path], architecture: VocoderConfig) -> VocoderModel:
    with torch.random.fork_rng():
        torch.manual_seed(config.fit.seed)
        model = VocoderModel(architecture)
    if config.fit.unit_init == "centres":
        start_from_centres(model.get_parameter("embeddings.units.weight"), models["quantizer"])
    if isinstance(model.generator, HifiganGenerator):
        normalise_weights(model.generator)
    return model.to(pick_device())


def _summary(steps: Steps) -> dict[str, Any]:
    ends = {end: zip(LOSSES, losses, strict=True) for end, losses in zip(("first", "last"), steps.ends, strict=True)}
    rounded = {end: {name: round(float(value), 4) for name, value in losses} for end, losses in ends.items()}
    return {"steps": steps.count, **rounded}


def _write_losses(history: list[list[float]], path: Path) -> None:
    """Every so many steps a line, averaged since the one before."""
    every = max(1, len(history) // _CURVE_POINTS)
    rows = [history[start : start + every] for start in range(0, len(history), every)]
    curve = {name: [round(float(np.mean(row, axis=0)[i]), 5) for row in rows] for i, name in enumerate(LOSSES)}
    path.write_text(json.dumps({"steps_per_point": every, **curve}) + "\n", encoding="utf-8")
