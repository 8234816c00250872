"""The noise-robust quantizer on real speech: what k-means says of clean clips, the network says of noisy ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from spiritlm_core.lake.view import TableView
from spiritlm_core.speech.config import UnitsConfig
from spiritlm_core.speech.fits import QuantizerFit
from spiritlm_core.speech.quantizers.config import (
    MOST_UNITS,
    AugmentConfig,
    LinearConfig,
    QuantizerConfig,
    QuantizerStageConfig,
)
from spiritlm_core.speech.quantizers.quantizer import LinearQuantizer, load_quantizer
from tests.align import speech
from tests.speech import synthetic

TINY = QuantizerStageConfig(
    kind="linear", units=12, restarts=1, linear=LinearConfig(steps=60, batch_crops=4, crop_frames=40, iterations=1)
)


def fit(
    config: QuantizerStageConfig,
    models: dict[str, Path],
    audio: pa.Table,
    out: Path,
    work: Path,
    progress: object = None,
) -> dict:
    for folder in (out, work):
        folder.mkdir(exist_ok=True)
    told = progress or (lambda *_: None)
    return QuantizerFit(config, models).build({"audio": TableView.of(audio)}, out, work, told)  # type: ignore[arg-type]


def weights(folder: Path) -> list[np.ndarray]:
    found = LinearQuantizer.load(folder / "linear.safetensors")
    return [*found.weights, *found.biases]


def test_it_learns_and_is_no_worse_than_its_teacher(models: dict[str, Path], tmp_path: Path) -> None:
    audio = speech.table([speech.row(f"{i:02}", wave, text) for i, (text, wave) in enumerate(speech.sentences(12))])
    config = TINY.model_copy(update={"linear": TINY.linear.model_copy(update={"steps": 100, "iterations": 2})})
    summary = fit(config, models, audio, tmp_path / "out", tmp_path / "work")
    first, second = summary["iterations"]
    assert second["loss_last"] < second["loss_first"]
    assert first["loss_last"] < first["loss_first"]
    distance = summary["unit_edit_distance"]
    assert distance["linear"] <= distance["kmeans"]
    quantizer = load_quantizer(tmp_path / "out")
    assert (quantizer.size, quantizer.layer, quantizer.width) == (13, summary["layer"], 32)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"linear.safetensors"}
    assert summary["units_used"] > 4


def test_a_killed_fit_ends_with_the_same_weights(
    audio: pa.Table, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spiritlm_core.fit.steps.CHECKPOINT_EVERY", 50)

    class Killed(Exception):  # noqa: N818
        pass

    def kill(_fraction: float, message: str) -> None:
        if "step 50/" in message:
            raise Killed

    with pytest.raises(Killed):
        fit(TINY, models, audio, tmp_path / "out", tmp_path / "work", kill)
    assert not list((tmp_path / "out").iterdir())
    messages: list[str] = []
    fit(TINY, models, audio, tmp_path / "out", tmp_path / "work", lambda _, message: messages.append(message))
    assert not any("step 50/" in message for message in messages)
    fit(TINY, models, audio, tmp_path / "whole", tmp_path / "other")
    for resumed, whole in zip(weights(tmp_path / "out"), weights(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(resumed, whole)


def test_one_short_clip_is_enough(models: dict[str, Path], tmp_path: Path) -> None:
    audio = synthetic.table(synthetic.row("only", synthetic.speech(0, 1.5)))
    config = TINY.model_copy(update={"linear": LinearConfig(steps=3, augment=AugmentConfig(probability=1.0))})
    summary = fit(config, models, audio, tmp_path / "out", tmp_path / "work")
    assert summary["kind"] == "linear"


def test_the_blank_is_a_unit_more() -> None:
    assert QuantizerConfig(units=500, kind="linear").size == 501
    assert QuantizerConfig(units=MOST_UNITS).size == MOST_UNITS
    assert UnitsConfig(quantizer=QuantizerConfig(units=9, kind="linear")).stage(expressive=False).hubert == 10
    with pytest.raises(ValidationError, match="the blank is one more"):
        QuantizerConfig(units=MOST_UNITS, kind="linear")
