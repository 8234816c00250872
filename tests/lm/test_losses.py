"""A loss is one file and one line, and training minimises the one that the recipe names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from spiritlm_core.fit.job import FitJob
from spiritlm_core.lm.config import LmConfig
from spiritlm_core.lm.losses import LOSSES, find_loss
from tests.lm.training import losses, run
from tests.support.small_model import tiny_config


def test_a_loss_of_ones_own_is_one_file_and_one_line(job: FitJob, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = run(job)
    monkeypatch.setitem(LOSSES, "smoothed", "tests.examples.loss:smoothed")
    mine = replace(job, config=tiny_config(loss="smoothed"), work=job.work / "mine", out=job.out / "mine")
    summary, _ = run(mine)
    first, *_, last = losses(mine.out)
    assert last[1] < first[1]
    likelihood = losses(job.out)[0][1]
    assert first[1] == pytest.approx(likelihood, rel=1e-5), "what is reported does not depend on what is minimised"
    assert summary["loss"] != plain["loss"]


def test_every_loss_can_be_found() -> None:
    assert all(callable(find_loss(name)) for name in LOSSES)


def test_a_loss_that_is_not_there_is_named() -> None:
    with pytest.raises(ValidationError, match="there is no loss 'cros_entropy': cross_entropy may be meant"):
        LmConfig(loss="cros_entropy")


def test_a_younger_setting_moves_no_key_while_it_has_its_default() -> None:
    assert "loss" not in LmConfig().key()
