"""Folders on a hub: a stand-in on this machine, which the hub's own client writes to and reads from, LFS included."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spiritlm_core.audio.codec import encode_wav
from tests.support.hub import Hub, Repository, serving
from tests.support.small_model import sound

ROOT = Path(__file__).parents[2]
ANN = "hf_ann"  # who may write
USED = """
import sys
from pathlib import Path
from spiritlm_core import SpeechTokenizer, SpiritLM
model, clip = sys.argv[1:]
speech = SpeechTokenizer.from_pretrained(model)
print(speech.to_string(speech.encode(Path(clip))))
answer = SpiritLM.from_pretrained(model).generate([Path(clip)], "speech", max_new_tokens=20)
print(answer.tokens)
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        hub.writer = ANN
        yield hub


@pytest.fixture
def model(speaking: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(speaking, tmp_path / "model"))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (folder / ".artifact").write_text("hidden")
    return folder


def ran(hub: Hub, home: Path, *command: str, who: str = ANN) -> subprocess.CompletedProcess[str]:
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": who, "XDG_CACHE_HOME": str(home)}
    environment = {**os.environ, **own, "PYTHONPATH": str(ROOT)}
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        [sys.executable, *command], check=False, capture_output=True, text=True, env=environment, cwd=ROOT
    )


def publish(hub: Hub, folder: Path, to: str, *options: str, who: str = ANN) -> subprocess.CompletedProcess[str]:
    command = ("-m", "spiritlm_core.cli", "publish", str(folder), "--to", to, *options)
    return ran(hub, folder.parent / "home", *command, who=who)


def test_what_is_published_is_used_by_its_name_as_the_folder_is(hub: Hub, model: Path, tmp_path: Path) -> None:
    done = publish(hub, model, "hf://ann/telephone", "--private")
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["models/ann/telephone"]
    assert done.stdout.strip() == f"{hub.url}/ann/telephone/commit/{repository.sha}"
    visible = {p.relative_to(model).as_posix(): p for p in model.rglob("*") if p.is_file() and p.name[0] != "."}
    assert repository.files == {name: path.read_bytes() for name, path in visible.items()}
    assert repository.private
    assert hub.blobs, "weights go by LFS"
    clip = tmp_path / "clip.wav"
    clip.write_bytes(encode_wav(sound("low", 3, 1.0)))
    here, there = (
        ran(hub, tmp_path / "fresh", "-c", USED, name, str(clip)) for name in (str(model), "hf://ann/telephone")
    )
    assert here.returncode == 0, here.stderr
    assert there.stdout == here.stdout, there.stderr
    (model / "metrics.json").unlink(missing_ok=True)
    (model / "README.md").write_text("# Another card\n")
    (model / "notes.txt").write_text("new")
    repository.files["gone.txt"] = b"old"
    assert publish(hub, model, "hf://ann/telephone").returncode == 0
    assert repository.files["README.md"] == b"# Another card\n"
    assert "gone.txt" not in repository.files
    assert "notes.txt" in repository.files


def test_a_model_is_exported_published_loaded_and_answers_in_one_script(hub: Hub, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    done = ran(hub, tmp_path / "home", "examples/share_model.py", str(model), str(file), "hf://ann/shared")
    assert done.returncode == 0, done.stderr
    size, commit, tokens = done.stdout.splitlines()
    assert size == f"{file}\t{file.stat().st_size} bytes"
    assert commit == f"{hub.url}/ann/shared/commit/{hub.repositories['models/ann/shared'].sha}"
    assert hub.repositories["models/ann/shared"].private
    assert tokens.startswith("[")


def test_an_exported_corpus_becomes_a_dataset(hub: Hub, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, content in {"README.md": "# Speech", "corpus.json": json.dumps({"splits": {}})}.items():
        (corpus / name).write_text(content)
    done = publish(hub, corpus, "hf://ann/speech")
    assert done.returncode == 0, done.stderr
    assert set(hub.repositories["datasets/ann/speech"].files) == {"README.md", "corpus.json"}


def test_what_cannot_be_published_says_why(hub: Hub, model: Path) -> None:
    refused = publish(hub, model, "hf://ann/telephone", who="hf_bob")
    assert refused.returncode == 1
    assert "HF_TOKEN wants a token" in refused.stderr
    for elsewhere in ("file:///tmp/x", "nowhere", "hf://ann"):
        assert "published to hf://ORG/NAME" in publish(hub, model, elsewhere).stderr
    hub.repositories["models/ann/open"] = Repository()
    assert "is public: nothing was sent" in publish(hub, model, "hf://ann/open", "--private").stderr
    assert not hub.repositories["models/ann/open"].files
    (model / "README.md").unlink()
    assert "has no README.md" in publish(hub, model, "hf://ann/telephone").stderr
    (model / "README.md").write_text("# A model")
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-9])
    assert "model.safetensors: copy or download it anew" in publish(hub, model, "hf://ann/telephone").stderr
    hub.stop()
    (model / "model.safetensors").unlink()
    assert "the hub cannot be reached" in publish(hub, model, "hf://ann/telephone").stderr
