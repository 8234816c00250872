"""A corpus whose units sound as tones, and the fit of a vocoder to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from spiritlm_core.lake.schema import table_of
from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.fits import VocoderFit
from spiritlm_core.speech.grid import FRAME
from spiritlm_core.speech.quantizers.kmeans import QUANTIZER_FILE, KMeans
from spiritlm_core.speech.stage import UNITS
from spiritlm_core.speech.vocoder.fit_config import VocoderFitConfig, VocoderStageConfig
from tests.speech.synthetic import row, table

TONES = (220.0, 400.0, 750.0, 1400.0)
"""Hertz of the sound of each unit."""
TINY = VocoderFitConfig.model_validate(
    {
        "generator": {"width": 64, "unit_layers": 1, "layers": 1},
        "embedding": 16,
        "duration_channels": 16,
        "unit_init": "random",
        "shifts": 1,
        "steps": 6,
        "adversarial_from": 3,
        "batch_crops": 2,
        "crop_frames": 8,
        "judged_frames": 4,
        "discriminators": {"periods": (2, 3), "scales": 2},
    }
)


def config(fit: VocoderFitConfig = TINY, **sizes: int) -> VocoderStageConfig:
    return VocoderStageConfig(fit=fit, hubert=len(TONES), **sizes)


def corpus(speakers: tuple[str | None, ...] = ("anna", "bob", "anna"), count: int = 50) -> dict[str, pa.Table]:
    """Utterances in which unit u lasts 1 + u frames and sounds at TONES[u]."""
    audio, units = [], []
    for i, speaker in enumerate(speakers):
        draw = np.random.default_rng(i)
        order = np.cumsum(draw.integers(1, len(TONES), count)) % len(TONES)  # never the same twice in a row
        hubert = np.repeat(order, 1 + order)[:count]
        phase = np.cumsum(np.repeat(np.asarray(TONES)[hubert], FRAME)) * 2 * np.pi / 16_000
        audio.append({**row(f"u{i}", (0.3 * np.sin(phase)).astype(np.float32)), "speaker": speaker})
        pitch, style = np.full(-(-count // 2), i), np.full(-(-count // 25), i)
        units.append({"utterance_id": f"u{i}", "hubert": hubert, "pitch": pitch, "style": style})
    return {"audio": table(*audio), "units": table_of(units, UNITS)}


def views(tables: dict[str, pa.Table]) -> dict[str, TableView]:
    return {name: TableView.of(one) for name, one in tables.items()}


def silent(fraction: float, message: str) -> None:
    pass


def build(folder: Path, settings: VocoderStageConfig, tables: dict[str, pa.Table], **models: Path) -> dict:
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return VocoderFit(settings, models).build(views(tables), folder / "out", folder / "work", silent)


def quantizer(folder: Path, centres: np.ndarray) -> Path:
    """A folder with a k-means of these centres."""
    folder.mkdir(parents=True, exist_ok=True)
    width = centres.shape[1]
    KMeans(centres, np.zeros(width, np.float32), np.ones(width, np.float32)).save(folder / QUANTIZER_FILE)
    return folder
