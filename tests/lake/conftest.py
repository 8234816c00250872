import pytest

from spiritlm_core.lake.lake import Lake


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path / "lake")
