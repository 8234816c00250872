"""The hub's own client against a small server that speaks its protocol."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spiritlm_core.references.content import content_digest
from spiritlm_core.references.hub import wanted
from tests.support.hub import Repository, serving

COMMIT = f"{1:040x}"
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickle",
    "tf_model.h5": b"other",
    "README.md": b"card",
    "sub/vocab.txt": b"vocab",
}


@pytest.fixture
def hub():
    with serving() as hub:
        hub.repositories["models/org/name"] = Repository(dict(FILES))
        yield hub


def resolved(reference, endpoint, home):
    code = (
        "import sys; from spiritlm_core.references.reference import resolve; from pathlib import Path\n"
        "found = resolve(sys.argv[1], Path(sys.argv[2]))\n"
        "print(found.digest); print(*sorted(p.name for p in found.path.rglob('*') if p.is_file()))"
    )
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        check=False,
        args=[sys.executable, "-c", code, reference, str(home / "cache")],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )


def test_a_snapshot_is_fetched_and_used_again_without_the_hub(hub, tmp_path):
    endpoint = hub.url
    first = resolved("hf://org/name", endpoint, tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stdout.split()[1:] == ["config.json", "model.safetensors", "vocab.txt"]
    assert not any("pytorch_model" in path for path in hub.asked)
    absent = resolved("hf://org/absent", endpoint, tmp_path)
    assert "no such repository" in absent.stderr.splitlines()[-1]
    hub.stop()
    again = resolved("hf://org/name", endpoint, tmp_path)
    assert again.stdout == first.stdout, again.stderr
    other = resolved("hf://org/other", endpoint, tmp_path)
    assert "cannot be reached and no copy is cached" in other.stderr


@pytest.mark.parametrize("reference", ["hf://org/name", f"hf://org/name@{COMMIT}"])
def test_damaged_files_are_fetched_again(hub, tmp_path, reference):
    endpoint = hub.url
    assert resolved(reference, endpoint, tmp_path).returncode == 0
    files = [next(tmp_path.rglob(name)) for name in ("model.safetensors", "sub/vocab.txt")]  # by sha256, and as git
    whole = [file.read_bytes() for file in files]
    for file in files:
        file.resolve().write_bytes(file.read_bytes().upper())
    again = resolved(reference, endpoint, tmp_path)
    assert again.returncode == 0, again.stderr
    assert [file.read_bytes() for file in files] == whole
    files[-1].resolve().write_bytes(whole[-1].upper())
    hub.stop()
    assert "no copy is cached" in resolved(reference, endpoint, tmp_path).stderr


def test_a_pinned_repository_has_the_digest_of_a_folder_with_the_same_files(hub, tmp_path):
    endpoint = hub.url
    taken = tmp_path / "copy"
    for name in ("config.json", "model.safetensors", "sub/vocab.txt"):
        (taken / name).parent.mkdir(parents=True, exist_ok=True)
        (taken / name).write_bytes(FILES[name])
    whole, one = content_digest(taken), hashlib.sha256(b"weights").hexdigest()
    assert resolved(f"hf://org/name#sha256={whole}", endpoint, tmp_path).stdout.split()[0] == whole
    part = resolved(f"hf://org/name#sha256={one}&files=model.safetensors", endpoint, tmp_path)
    assert part.stdout.split() == [one, "model.safetensors"]
    assert "not the pinned one" in resolved(f"hf://org/name#sha256={'0' * 64}", endpoint, tmp_path).stderr


def test_one_format_of_weights_is_taken():
    assert wanted(["pytorch_model.bin", "config.json", "flax_model.msgpack"]) == ["config.json", "pytorch_model.bin"]
    assert wanted(["model.safetensors", "pytorch_model.bin", "a.gguf"]) == ["model.safetensors"]
    several = ["a.safetensors", "model.safetensors.index.json", "b.bin", "b.bin.index.json"]
    assert wanted(several) == ["a.safetensors", "model.safetensors.index.json"]
    assert wanted(["a.gguf", "README.md"]) == ["a.gguf"]
    assert wanted(["a.safetensors", "a.bin", "sub/b.bin"]) == ["a.safetensors", "sub/b.bin"]
