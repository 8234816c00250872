from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.fingerprint import (
    artifact_key,
    canonical_json,
    digest,
    shard_key,
    snapshot_fingerprint,
    stage_identity,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e15, 1e15)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


GOLDEN = {
    "identity": "0b248341d1be72f66ab71d33a56f43503401fedffc06e7106c93a07791a35273",
    "shard": "bba0fd1df95d3924e4601c9f9133cead31185652493c02eb7c8b124fae6ea5b3",
    "artifact": "0f45801914b7ed80a868860b493f53a6dd8ed48311cc7e5a09715a0c5c00eb04",
    "snapshot": "2973bba787b6468fce1b163968b7b57e850c1e20888214f5bb5c7187b3d4dffc",
}


def test_golden_keys_never_change():
    """The written specification: docs/fingerprints.md. A change here makes every lake recompute everything."""
    identity = stage_identity("units", 3, {"layer": 11, "rate": 25.0, "name": "é"}, {"hubert": "ab" * 32})
    assert canonical_json({"b": 1.0, "a": [True, None, "é"]}) == '{"a":[true,null,"é"],"b":1}'.encode()
    assert identity == GOLDEN["identity"]
    assert shard_key(identity, ["01" * 32, "02" * 32]) == GOLDEN["shard"]
    assert artifact_key(identity, {"audio": "03" * 32}) == GOLDEN["artifact"]
    assert snapshot_fingerprint("units", ["01" * 32, "02" * 32]) == GOLDEN["snapshot"]


@given(VALUES)
def test_canonical_json_is_json_and_stable(value):
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-1000, 1000), min_size=2))
def test_the_order_of_keys_is_irrelevant(mapping):
    assert digest(mapping) == digest(dict(reversed(mapping.items())))


@given(st.lists(st.text("0123456789abcdef", min_size=8, max_size=8), unique=True), st.randoms())
def test_a_snapshot_is_a_set_of_shards(keys, random):
    shuffled = list(keys)
    random.shuffle(shuffled)
    assert snapshot_fingerprint("audio", keys) == snapshot_fingerprint("audio", shuffled + keys[:1])


@given(VALUES, VALUES)
def test_different_configs_give_different_identities(one, other):
    same = canonical_json(one) == canonical_json(other)
    assert (stage_identity("s", 1, one, {}) == stage_identity("s", 1, other, {})) is same


def test_every_part_counts():
    identities = {
        stage_identity("a", 1, {}, {}),
        stage_identity("b", 1, {}, {}),
        stage_identity("a", 2, {}, {}),
        stage_identity("a", 1, {"x": 1}, {}),
        stage_identity("a", 1, {}, {"m": "1"}),
        stage_identity("a", 1, {}, {"n": "1"}),
    }
    assert len(identities) == 6
    identity = identities.pop()
    assert shard_key(identity, ["a", "b"]) != shard_key(identity, ["b", "a"])
    assert shard_key(identity, ["a"]) != artifact_key(identity, {"t": "a"})


def test_keys_do_not_depend_on_the_process():
    code = (
        "from spiritlm_core.lake.fingerprint import digest; print(digest({'x': [1, 2.5, 'ü'], 'a': {'c': 1, 'b': 2}}))"
    )
    environment = {"PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest({"a": {"b": 2, "c": 1}, "x": [1, 2.5, "ü"]})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, {1, 2}, b"x", 2**60, "\ud800"])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(LakeError, match="fingerprint"):
        canonical_json(value)
