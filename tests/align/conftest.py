"""A small aligner, fitted once for all the tests that need one."""

import pytest

from spiritlm_core.align.config import AlignerFitConfig
from spiritlm_core.align.fit import AlignerFit
from spiritlm_core.lake.view import TableView
from tests.align.speech import TRAINED, row, sentences, table

SMALL = AlignerFitConfig(steps=110, channels=96, layers=5, batch_seconds=20.0, learning_rate=4e-3)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """Folder, summary and progress reports of an aligner that pocketsphinx taught on two minutes of speech."""
    pytest.importorskip("pocketsphinx")
    rows = [row(f"u{i:03}", w, t) for i, (t, w) in enumerate(sentences(TRAINED))]
    out, work, seen = tmp_path_factory.mktemp("aligner"), tmp_path_factory.mktemp("work"), []
    tables = {"audio": TableView.of(table(rows[::2]), table(rows[1::2]))}
    summary = AlignerFit(SMALL, {}).build(tables, out, work, lambda done, what: seen.append((done, what)))
    return out, summary, seen
