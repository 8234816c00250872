import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from spiritlm_core.lake.view import TableView
from tests.speech import synthetic
from tests.speech.models import CONFIG


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
        yield


@pytest.fixture(scope="session")
def audio() -> pa.Table:
    return synthetic.corpus()


@pytest.fixture(scope="session")
def built(audio: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, dict]]:
    """Folders and summaries of all four fitted models."""
    from spiritlm_core.speech.fits import HubertFit, PitchFit, QuantizerFit, StyleFit

    models: dict[str, Path] = {}
    summaries: dict[str, dict] = {}
    stages = {
        HubertFit: CONFIG.hubert,
        QuantizerFit: CONFIG.quantizer_stage,
        PitchFit: CONFIG.pitch,
        StyleFit: CONFIG.style,
    }
    for stage, config in stages.items():
        out = tmp_path_factory.mktemp(stage.name)
        work = tmp_path_factory.mktemp(f"{stage.name}-work")
        summaries[stage.name] = stage(config, models).build({"audio": TableView.of(audio)}, out, work, lambda *_: None)
        models[stage.name] = out
    return models, summaries


@pytest.fixture(scope="session")
def models(built: tuple[dict[str, Path], dict[str, dict]]) -> dict[str, Path]:
    return built[0]


@pytest.fixture(scope="session")
def summaries(built: tuple[dict[str, Path], dict[str, dict]]) -> dict[str, dict]:
    return built[1]
