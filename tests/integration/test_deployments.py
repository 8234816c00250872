"""Deployments on a real Prefect server (PostgreSQL) with a real worker: registered, run, and failing as they should."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spiritlm_core.lake.lake import Lake
from tests.audio.files import sound
from tests.audio.synthetic import voice
from tests.support.processes import tail
from tests.support.servers import REPOSITORY, PrefectServer, prefect_worker
from tests.support.watching import PATIENCE, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]
POOL = "spiritlm"
DEPLOYMENTS = {
    "pipeline/quickstart",
    "corpus/nightly",
    "fit_units/units",
    "fit_vocoder/vocoder",
    "evaluate_units/judge-units",
    "evaluate_resynthesis/judge-vocoder",
    "train/train",
    "finetune/finetune",
    "evaluate/evaluate",
}


def prefect(server: PrefectServer, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    return run(command, server, **options)


def run(command: list[str], server: PrefectServer, **options) -> subprocess.CompletedProcess[str]:
    settings = {
        "cwd": REPOSITORY,
        "env": server.environment,
        "stdin": subprocess.DEVNULL,
        "timeout": PATIENCE,
    } | options
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **settings)


@pytest.fixture(scope="module")
def deployed(prefect_server: PrefectServer) -> PrefectServer:
    """The server, with the work pool and every deployment of prefect.yaml."""
    for arguments in (("work-pool", "create", POOL, "--type", "process", "--overwrite"), ("deploy", "--all")):
        done = prefect(prefect_server, *arguments)
        assert done.returncode == 0, done.stdout
    return prefect_server


@pytest.fixture(scope="module")
def worker(deployed: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A worker process on the pool; gives its log. It ends by SIGTERM."""
    with prefect_worker(deployed, tmp_path_factory.mktemp("worker") / "log") as log:
        yield log


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three short clips."""
    folder = tmp_path_factory.mktemp("clips")
    for seed in (0, 2, 3):
        sound(folder / f"{seed}.flac", voice(1.5, seed), subtype="PCM_16")
    return folder


# --- what is registered ---------------------------------------------------------------------------------------


def test_every_deployment_is_registered(deployed):
    found = deployed.deployments()
    assert set(found) == DEPLOYMENTS
    for name, item in found.items():
        assert item["work_pool_name"] == POOL, name
        assert item["concurrency_limit"] == 1 or item["global_concurrency_limit"]["limit"] == 1, name
        assert item["description"], name


def test_registering_again_restores_what_the_file_says(deployed):
    before = deployed.deployments()
    schedule = before["corpus/nightly"]["schedules"][0]["id"]
    assert prefect(deployed, "deployment", "schedule", "resume", "corpus/nightly", schedule).returncode == 0
    assert deployed.deployments()["corpus/nightly"]["schedules"][0]["active"] is True
    assert prefect(deployed, "deploy", "--all").returncode == 0
    after = deployed.deployments()
    assert {name: item["id"] for name, item in after.items()} == {name: item["id"] for name, item in before.items()}
    assert [item["active"] for item in after["corpus/nightly"]["schedules"]] == [False]


def test_the_nightly_schedule_is_paused(deployed):
    found = deployed.deployments()
    (schedule,) = found["corpus/nightly"]["schedules"]
    assert (schedule["active"], schedule["slug"]) == (False, "nightly")
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 3 * * *", "UTC")
    assert all(item["schedules"] == [] for name, item in found.items() if name != "corpus/nightly")


def test_the_form_of_a_run_has_every_setting_of_a_recipe(deployed):
    """The UI draws the form from this schema."""
    schema = deployed.deployments()["pipeline/quickstart"]["parameter_openapi_schema"]
    assert set(schema["properties"]) == {"recipe", "lake", "sources", "overrides", "until", "refit"}
    assert all(field["description"] for field in schema["properties"].values())
    recipe = schema["definitions"]["Recipe"]
    assert {"name", "variant", "sources", "audio", "align", "units", "tokens", "lm", "compute"} <= set(
        recipe["properties"]
    )
    assert recipe["properties"]["variant"]["enum"] == ["base", "expressive"]
    assert {"AudioConfig", "AlignConfig", "UnitsConfig", "TokensConfig", "LmConfig"} <= set(schema["definitions"])
    assert "minimum" in json.dumps(schema["definitions"]["AudioConfig"]), "bounds are part of the form"


# --- runs -----------------------------------------------------------------------------------------------------


def test_a_worker_runs_a_deployment(deployed, worker, clips, tmp_path):
    lake = tmp_path / "lake"
    parameters = {"lake": str(lake), "sources": json.dumps([str(clips)]), "until": "audio"}
    options = [text for key, value in parameters.items() for text in ("--param", f"{key}={value}")]
    done = prefect(deployed, "deployment", "run", "pipeline/quickstart", *options, "--watch")
    assert done.returncode == 0, f"{done.stdout}\n{tail(worker)}"
    assert audio_totals(lake, "quickstart") == (3, 0)
    (flow_run,) = deployed.call("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})
    assert (flow_run["state_type"], flow_run["parameters"]["until"]) == ("COMPLETED", "audio")
    assert re.fullmatch(r"quickstart-\d{4}-\d\d-\d\d-\d{4}", flow_run["name"])
    wait_for(lambda: any("✓ audio       3 rows" in line for line in log(deployed, flow_run)))  # it is sent in pieces
    tasks = deployed.call("/task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run["id"]]}}})
    assert [(task["name"], task["state_type"]) for task in tasks] == [("audio", "COMPLETED")]
    artifacts = deployed.call("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run["id"]]}}})
    assert {item["key"] for item in artifacts} >= {"progress-audio", "stage-audio", "stages"}


def test_the_ci_script_runs_a_whole_recipe(deployed, worker, clips, tmp_path):
    """As a CI job would; the recipe travels as one JSON object, as the form of the UI sends it."""
    recipe = {"name": "tiny", "sources": [{"kind": "folder", "path": str(clips)}], "compute": {"executor": "inline"}}
    lake = tmp_path / "lake"
    parameters = [f"recipe={json.dumps(recipe)}", f"lake={lake}", "until=audio"]
    done = trigger(deployed, "pipeline/quickstart", *parameters)
    assert done.returncode == 0, f"{done.stdout}\n{tail(worker)}"
    assert audio_totals(lake, "tiny") == (3, 0)


def test_the_ci_script_fails_when_the_run_fails(deployed, worker, tmp_path):
    done = trigger(deployed, "pipeline/quickstart", "recipe=no-such-recipe", f"lake={tmp_path}/lake")
    assert done.returncode == 1, done.stdout
    wait_for(lambda: "no recipe 'no-such-recipe'" in worker.read_text())


def test_what_can_be_refused_at_once_is(deployed, tmp_path):
    """The server checks parameters against the form, before a worker is bothered."""
    wrong = json.dumps({"name": "tiny", "sources": [{"kind": "folder", "path": "x"}], "varriant": "base"})
    for deployment, parameter in (("pipeline/quickstart", "until=3"), ("pipeline/quickstart", f"recipe={wrong}")):
        assert trigger(deployed, deployment, parameter, f"lake={tmp_path}/lake").returncode == 1
    assert trigger(deployed, "pipeline/none").returncode == 1
    assert trigger(deployed, "pipeline").returncode == 2
    assert trigger(deployed, "pipeline/quickstart", "until").returncode == 2


def test_an_error_is_one_line_wherever_it_is_shown(deployed, worker):
    assert trigger(deployed, "pipeline/quickstart", "lake=/dev/null/lake", "until=audio").returncode == 1
    (flow_run,) = deployed.call("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})
    places = (lambda: flow_run["state"]["message"], lambda: "".join(log(deployed, flow_run)), worker.read_text)
    for said in places:  # logs come a little later than the state
        wait_for(lambda said=said: "/dev/null/lake cannot be written to" in said())
        assert "Traceback" not in said()


def log(server: PrefectServer, flow_run: dict) -> list[str]:
    wanted = {"logs": {"flow_run_id": {"any_": [flow_run["id"]]}}}
    return [line["message"] for line in server.call("/logs/filter", wanted)]


def trigger(server: PrefectServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run([str(REPOSITORY / "infra/ci/trigger.sh"), *arguments], server)


def audio_totals(lake: Path, recipe: str) -> tuple[int, int]:
    opened = Lake(lake)
    ref = opened.read_ref(recipe, "audio")
    assert ref is not None
    totals = opened.read_snapshot("audio", ref.target).totals
    return totals.rows_out, totals.rejected


# --- imports --------------------------------------------------------------------------------------------------

HEAVY = "{'torch', 'ray', 'whisperx', 'transformers', 'sklearn', 'matplotlib', 'lhotse', 'faster_whisper'}"
REPORT = f"import json, sys; print(json.dumps([time.perf_counter() - began, sorted({HEAVY} & set(sys.modules))]))"


SHOW_HELP = """
from spiritlm_core.cli.app import app
from typer.testing import CliRunner
answer = CliRunner().invoke(app, ["--help"])
assert answer.exit_code == 0 and "recipes" in answer.output
"""


@pytest.mark.parametrize("code", ["import flows.pipeline", SHOW_HELP], ids=["flows", "help"])
def test_what_is_imported_first_is_light(code):
    program = f"import time; began = time.perf_counter()\n{code}\n{REPORT}"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=REPOSITORY)
    seconds, heavy = json.loads(done.stdout.splitlines()[-1])
    sys.stdout.write(f"{code.split()[1]}: {seconds:.2f} s\n")
    assert heavy == []
