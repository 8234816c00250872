"""Two processes fine-tune the model that one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from spiritlm_core.lake.view import TableView

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def test_adapters_merge_from_sharded_weights(published: Path, classification: TableView, tmp_path: Path) -> None:
    examples = tmp_path / "examples.parquet"
    pq.write_table(classification.read(), examples)
    for processes in (1, 2):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        arguments = [published, examples, tmp_path / str(processes)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*launcher, str(Path(__file__).with_name("workers.py")), *map(str, arguments)],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    curves = [pq.read_table(tmp_path / n / "out" / "metrics.parquet")["loss"].to_pylist() for n in ("1", "2")]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4)
    one, two = (load_file(tmp_path / n / "out" / "model.safetensors") for n in ("1", "2"))
    assert one.keys() == two.keys() == load_file(published / "model.safetensors").keys()
    for name, weights in one.items():
        np.testing.assert_allclose(two[name], weights, rtol=1e-3, atol=1e-4, err_msg=name)
