"""The notebook runs from its first cell to its last, on a small model that hears and speaks."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from spiritlm_core import SpiritLM
from spiritlm_core.audio.codec import encode_wav
from tests.support.small_model import sound
from tests.support.watching import PATIENCE

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs/use_a_model.ipynb"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("notebook") / "recording.wav"
    path.write_bytes(encode_wav(sound("low", 3, 2.0)))
    return path


@pytest.fixture(scope="module")
def outputs(speaking: Path, recording: Path) -> dict[str, list[nbformat.NotebookNode]]:
    """What each cell of the notebook puts out, by its id."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SPIRITLM_MODEL", str(speaking))
        environment.setenv("PYTHONPATH", str(ROOT))
        environment.setenv("HF_HUB_OFFLINE", "1")
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        client = NotebookClient(
            notebook, timeout=int(PATIENCE), kernel_name="python3", resources={"metadata": {"path": recording.parent}}
        )
        client.execute()
    return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def printed(cell: list[nbformat.NotebookNode]) -> str:
    return "".join(output.text for output in cell if output.output_type == "stream" and output.name == "stdout")


def heard(cell: list[nbformat.NotebookNode]) -> bool:
    return any("<audio" in output.get("data", {}).get("text/html", "") for output in cell)


def test_the_notebook_is_stored_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    assert NOTEBOOK.stat().st_size < 10_000


def test_a_recording_becomes_units_and_sound_again(outputs):
    assert "[Hu" in printed(outputs["tokens"])
    assert heard(outputs["tokens"])


def test_a_sentence_becomes_speech(outputs):
    assert "[Hu" in printed(outputs["say"])
    assert heard(outputs["say"])


def test_a_recording_gets_the_transcript_that_the_model_gives_it(outputs, speaking, recording):
    answer = SpiritLM.from_pretrained(speaking).generate([recording], "text", max_new_tokens=50, stop=["[Speech]"])
    assert printed(outputs["transcribe"]) == f"{answer.text}\n"


def test_a_recording_between_texts_is_continued_and_gets_a_label(outputs):
    kinds = {line.split()[0] for line in printed(outputs["mixed"]).splitlines()}
    assert kinds
    assert kinds <= {"text", "speech"}
    assert printed(outputs["classify"]).split()[0] in {"happy", "sad"}
