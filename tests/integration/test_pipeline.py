"""The whole pipeline as people run it: real speech, real Prefect, real workers, at the smallest size of every stage."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path

import pytest

from tests.integration import runs
from tests.integration.bad_folder import BAD, bad_folder
from tests.integration.kill_runs import kill_and_rerun
from tests.integration.speech import prompts
from tests.support.watching import PATIENCE

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def speech(place):
    return prompts(place / "speech")


@pytest.fixture(scope="module")
def first(place, speech):
    """One undisturbed run of everything."""
    return runs.run(speech, place / "lake", home=place / "home")


def test_a_run_makes_everything(place, first):
    stages = first["stages"]
    assert list(stages) == [
        "audio", "aligner", "words", "hubert", "quantizer", "pitch", "style", "units", "vocoder",
        "tokenizer", "sequences", "model", "evaluation", "published",
    ]  # fmt: skip
    for stage in stages.values():
        assert stage["rows_in"] == stage["rows_out"] + stage["rejected"]
        assert stage["shards_computed"] == stage["shards_total"]
        assert stage["shards_reused"] == 0
    assert stages["audio"]["rows_in"] == 28
    assert stages["words"]["rows_in"] == stages["audio"]["rows_out"]
    assert (place / "lake" / "outputs" / "tiny" / "report.html").is_file()
    assert len(first["samples"]) >= 1


def test_the_published_folder_loads(first):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(first["model"])
    model = AutoModelForCausalLM.from_pretrained(first["model"])
    ids = tokenizer("[Speech][Hu3][Hu4]", return_tensors="pt", add_special_tokens=False)
    assert model(**ids).logits.shape[-1] >= len(tokenizer)


def test_again_reuses_everything_without_ray(place, speech, first):
    before = runs.committed(place / "lake")
    again = runs.run(speech, place / "lake", home=place / "home", RAY_ADDRESS="127.0.0.1:1")  # nothing listens there
    assert runs.fingerprints(again) == runs.fingerprints(first)
    assert all(stage["shards_computed"] == 0 for stage in again["stages"].values())
    assert again["startup_seconds"] == 0  # nobody is to be told, so no Prefect server was started
    assert runs.committed(place / "lake") == before


def test_status_and_lake_commands(place, first):
    home, lake = place / "home", place / "lake"
    found = json.loads(runs.spiritlm("status", "--lake", lake, "--json", home=home))
    assert {n: s["fingerprint"] for n, s in found["recipes"]["tiny"].items()} == runs.fingerprints(first)
    assert found["running"] == []
    assert "nothing is wrong" in runs.spiritlm("lake", "verify", "--lake", lake, home=home)
    unused = json.loads(runs.spiritlm("lake", "gc", "--dry-run", "--json", "--lake", lake, home=home))["paths"]
    assert all(path.startswith("work/") and path.endswith(".lock") for path in unused)  # of finished fits
    shown = runs.spiritlm("lake", "show", "words", "--limit", 2, "--json", "--lake", lake, home=home).splitlines()
    assert len(shown) == 2
    assert json.loads(shown[0])["words"]


def test_the_ui_shows_the_run_and_one_that_had_nothing_to_compute(place, speech, first):
    process = runs.start("ui", "--no-browser", "--seconds", 600, home=place / "home", PYTHONUNBUFFERED="1")
    try:
        address = process.stdout.readline().split()[2]
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address) as page:
            assert b"<title>Prefect" in page.read()
        told = len(_ask(address, "flow_runs"))
        runs.run(speech, place / "lake", home=place / "home", PREFECT_API_URL=f"{address}/api")
        assert len(_ask(address, "flow_runs")) == told + 1
        states = {run["state_name"] for run in _ask(address, "flow_runs")}
        tasks = {run["name"] for run in _ask(address, "task_runs")}
        artifacts = {(found["key"], found["type"]) for found in _ask(address, "artifacts")}
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)
    assert "Completed" in states
    assert set(first["stages"]) <= tasks
    assert {
        ("progress-units", "progress"),
        ("stage-units", "table"),
        ("stages", "table"),
        ("training", "image"),
    } <= artifacts


def _ask(address, what):
    request = urllib.request.Request(
        f"{address}/api/{what}/filter", data=b"{}", headers={"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def test_one_new_recording_costs_one_shard_per_table(place, speech, first):
    lake = place / "grown"
    shutil.copytree(place / "lake", lake)
    more = shutil.copytree(speech, place / "more")
    old = set(runs.committed(lake))
    prompts(more, count=1, skip=40)
    grown = runs.run(more, lake, "--until", "corpus", home=place / "home")["stages"]
    for table in runs.TABLES:
        assert (grown[table]["shards_computed"], grown[table]["shards_total"]) == (1, 5)
    for name in runs.FITTED:
        assert grown[name]["shards_computed"] == 0
        assert grown[name]["fingerprint"] == first["stages"][name]["fingerprint"]
    assert old <= set(runs.committed(lake))
    assert grown["audio"]["rows_in"] == 29
    gone = min(more.glob("*.g722"))
    gone.unlink()
    gone.with_suffix(".txt").unlink()
    smaller = runs.run(more, lake, "--until", "units", home=place / "home")["stages"]
    assert smaller["audio"]["rows_in"] == 28
    assert smaller["audio"]["shards_computed"] == 1


def test_kills_do_not_show(place, speech, first):
    objects = sum(stage["shards_total"] for stage in first["stages"].values())
    outcome = kill_and_rerun(speech, place / "killed", place / "home", kills=3, objects=objects, seed=1, more=[])
    assert outcome.kills == 3
    assert runs.fingerprints(outcome.result) == runs.fingerprints(first)
    assert (outcome.rewritten, outcome.lost, outcome.recomputed) == ([], [], 0)


def test_a_bad_folder_loses_nothing(place, speech, first):
    folder = bad_folder(speech, place / "bad")
    lake = place / "lake"  # its models are pinned, so only rows are computed
    stages = runs.run(folder, lake, "--until", "sequences", home=place / "home")["stages"]
    rows = [
        json.loads(line)
        for line in runs.spiritlm(
            "lake", "show", "audio", "--limit", 0, "--json", "--lake", lake, home=place / "home"
        ).splitlines()
    ]
    for name, reason in BAD.items():
        found = [row for row in rows if Path(row["source_uri"]).stem == Path(name).stem]
        assert len(found) == 1, (name, found)
        assert found[0]["reject_stage"] == "audio"
        assert reason in found[0]["reject_reason"]
    for name in ("studio", "old", "caf"):
        assert any(name in row["source_uri"].rpartition("/")[2] for row in rows)
    assert sum("long.wav" in row["source_uri"] for row in rows) > 5
    audio = stages["audio"]
    assert audio["rows_in"] == len(rows) == audio["rows_out"] + audio["rejected"]
    assert stages["words"]["rows_in"] == stages["units"]["rows_in"] == audio["rows_out"]
    assert stages["sequences"]["rows_in"] == stages["words"]["rows_out"]
    assert stages["aligner"]["fingerprint"] == first["stages"]["aligner"]["fingerprint"]


def test_two_runs_at_once_agree(place, speech, first):
    lake, home = place / "shared", place / "home"
    arguments = ("run", runs.RECIPE, "--source", speech, "--lake", lake, "--json", "--until", "sequences")
    both = [runs.start(*arguments, home=home) for _ in range(2)]
    ended = [(process.communicate(timeout=PATIENCE), process.returncode) for process in both]
    assert [code for _, code in ended] == [0, 0], ended
    expected = {name: first["stages"][name]["fingerprint"] for name in ("audio", "words", "units")}
    for (out, _), _ in ended:
        found = runs.fingerprints(json.loads(out))
        assert {name: found[name] for name in expected} == expected


def test_s3_gives_the_same_fingerprints(place, speech, first, seaweedfs):
    remote = runs.run(speech, f"{seaweedfs.uri}/lake", home=place / "home")
    assert runs.fingerprints(remote) == runs.fingerprints(first)
    assert remote["model"].startswith("s3://")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "no recipe 'nosuch'"),
        (["quickstart", "--set", "lm.stepz=3"], r"--set lm.stepz=3: lm.stepz: unknown key"),
        (["quickstart", "--until", "nosuch"], "no stage 'nosuch'"),
        (["quickstart", "--source", "/no/such/folder"], "no such folder"),
    ],
)
def test_mistakes_are_said_at_once(place, arguments, message):
    said = runs.spiritlm("run", *arguments, "--lake", place / "x", home=place / "home", status=1)
    assert message in said
    assert "Traceback" not in said
