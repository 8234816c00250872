"""A loss is one file and one line, and training minimises the one that the recipe names."""

from __future__ import annotations

from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from spiritlm_core.fit.job import FitJob
from spiritlm_core.lake.plan import load_class
from spiritlm_core.lm.config import LmConfig
from spiritlm_core.lm.losses import LOSSES
from spiritlm_core.tokens.corpus import STREAMS
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
    assert all(callable(load_class(path)) for path in LOSSES.values())


def test_a_loss_that_is_not_there_is_named() -> None:
    with pytest.raises(ValidationError, match="there is no loss 'cros_entropy': cross_entropy may be meant"):
        LmConfig(loss="cros_entropy")


def test_a_younger_setting_moves_no_key_while_it_has_its_default() -> None:
    assert LmConfig().key().keys().isdisjoint({"loss", "stream_weights", "patience"})
    assert LmConfig(stream_weights={"text": 1.0}).key() == LmConfig().key()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"speach": 1}, "there is no stream 'speach': speech may be meant"),
        ({"text": -1}, "greater than or equal to 0"),
        (dict.fromkeys(STREAMS, 0), "at least one stream needs a weight above 0"),
    ],
)
def test_weights_that_cannot_be_are_named(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LmConfig(stream_weights=weights)


def test_a_stream_without_weight_is_reported_and_not_learned(job: FitJob) -> None:
    rows = {}
    for name, weights in {"all": {}, "text": {"speech": 0, "interleaved": 0}}.items():
        mine = replace(job, work=job.work / name, out=job.out / name)
        run(replace(mine, config=tiny_config(steps=30, stream_weights=weights)))
        rows[name] = pq.read_table(mine.out / "metrics.parquet").to_pylist()
    keys = ["loss", *(f"loss_{stream}" for stream in STREAMS)]
    first = [[every[0][key] for key in keys if every[0].get(key)] for every in rows.values()]
    assert first[1] == pytest.approx(first[0], rel=1e-6), "reported without weights"
    text, speech = ([row[key] for row in rows["text"] if row[key]] for key in ("loss_text", "loss_speech"))
    assert speech[-1] > [row["loss_speech"] for row in rows["all"] if row["loss_speech"]][-1] + 0.3
    assert text[-1] < 0.9 * text[0]
