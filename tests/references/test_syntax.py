import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spiritlm_core.align.config import AlignConfig
from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.references.syntax import Parsed, mirrors, parse

SHA = "0f" * 32


@pytest.mark.parametrize(
    ("reference", "parsed"),
    [
        ("hf://org/name", Parsed("hf", "org/name")),
        ("hf://name@v1.0", Parsed("hf", "name", "v1.0")),
        ("hf://org/na.me-2@refs/pr/1", Parsed("hf", "org/na.me-2", "refs/pr/1")),
        ("file:///a b/c", Parsed("file", "/a b/c")),
        ("file://models/x", Parsed("file", "models/x")),
        ("s3://bucket/a/b", Parsed("s3", "bucket/a/b")),
        ("pypi://pkg==1.0/dir/file.bin", Parsed("pypi", "pkg", "1.0", "dir/file.bin")),
        (f"pypi://my-pkg==1.0.post1/dir/#sha256={SHA}", Parsed("pypi", "my-pkg", "1.0.post1", "dir/", SHA)),
        (f"hf://org/name@main#sha256={SHA}", Parsed("hf", "org/name", "main", sha256=SHA)),
        (f"file:///a#sha256={SHA}&files=b.bin,a", Parsed("file", "/a", sha256=SHA, files=("a", "b.bin"))),
    ],
)
def test_good_references(reference, parsed):
    assert parse(reference) == parsed


@pytest.mark.parametrize(
    "reference",
    [
        "", "org/name", "http://host/x", "hf://", "hf://a/b/c", "hf://org/name@", "hf://-x", "file://", "s3://bucket",
        "s3://bucket/", "pypi://pkg/file", "pypi://pkg==1.0", "pypi://pkg==1.0/", "pypi://pkg==1.0/../x",
        "pypi://pkg==1.0//x", "pypi://pkg==1.0/x#sha256=abc", "pypi://pkg==1.0/x#md5=1", "pypi://--evil==1.0/x",
        f"hf://a/b#sha256={SHA}&files=../x", "file:///a#", "s3://a/b#files=x",
    ],
)  # fmt: skip
def test_bad_references_say_how_to_write_them(reference):
    with pytest.raises(ModelReferenceError, match="://"):
        parse(reference)


@given(st.text(max_size=40), st.sampled_from(["", "hf://", "pypi://", "s3://", "file://"]))
def test_nothing_else_is_raised(text, scheme):
    with contextlib.suppress(ModelReferenceError):
        assert parse(scheme + text).name


def test_the_pin_of_one_mirror_holds_for_all():
    pinned = f"pypi://pkg==1.0/a b/#sha256={SHA}&files=model.bin"
    places = mirrors(f"hf://org/name@main {pinned}\n  file:///a b/c")
    assert [place.uri for place in places] == ["hf://org/name@main", "pypi://pkg==1.0/a b/", "file:///a b/c"]
    assert {(place.sha256, place.files) for place in places} == {(SHA, ("model.bin",))}


@pytest.mark.parametrize("second", ["hf://c/d", f"hf://c/d#sha256={SHA[::-1]}", f"hf://c/d#sha256={SHA}&files=x"])
def test_mirrors_that_nothing_says_to_be_the_same_are_an_error(second):
    first = "hf://a/b" if "#" not in second else f"hf://a/b#sha256={SHA}"
    with pytest.raises(ModelReferenceError, match="must hold one content"):
        mirrors(f"{first} {second}")


def test_a_setting_takes_a_list_of_mirrors():
    given = ["hf://org/name", f"file:///a#sha256={SHA}"]
    config = AlignConfig(aligner=given)
    assert config.aligner == " ".join(given)
    assert AlignConfig.model_validate(config.model_dump(mode="json")) == config
    with pytest.raises(ValidationError, match="must hold one content"):
        AlignConfig(aligner=["hf://org/name", "file:///a"])


def test_a_bad_reference_in_a_recipe_is_an_error_of_its_field():
    with pytest.raises(ValidationError, match="aligner"):
        AlignConfig(aligner="wav2vec2")
    assert AlignConfig(aligner="hf://org/name").aligner == "hf://org/name"
