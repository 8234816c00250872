"""What can be known of infra/ without a cluster: it parses, keeps to loopback, and fits the rest of the repository."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from spiritlm_core.telemetry import OFF

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
FILES = sorted(path for path in INFRA.rglob("*") if path.is_file() and path.name not in (".env", "secret.env"))
MANIFESTS = [path for path in FILES if path.suffix in (".yaml", ".yml")]
PINS = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line)


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(INFRA).as_posix() for path in paths]


def load(name: str) -> dict:
    return yaml.safe_load((INFRA / name).read_text())


@pytest.mark.parametrize("path", MANIFESTS, ids=names(MANIFESTS))
def test_every_manifest_is_yaml(path):
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("name", names([path for path in FILES if path.suffix == ".sh"]))
def test_every_script_parses_and_is_executable(name):
    subprocess.run(["bash", "-n", INFRA / name], check=True)
    assert (INFRA / name).stat().st_mode & 0o111


def test_the_index_lists_every_file():
    listed = set(re.findall(r"^\| `([^`]+)` \|", (INFRA / "README.md").read_text(), re.MULTILINE))
    assert listed == set(names(FILES)) - {"README.md"}


def test_compose_listens_on_loopback_only():
    services = load("compose.yaml")["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(str(port).startswith("127.0.0.1:") for port in ports)
    assert not any("network_mode" in service for service in services.values())


def test_compose_has_no_secret_in_it():
    """Every password comes from the environment, and the example names every variable that must be set."""
    text = (INFRA / "compose.yaml").read_text()
    for line in re.findall(r".*(?:PASSWORD|SECRET|AUTH|ACCESS_KEY)\w*: .*", text):
        assert "${" in line, line
    needed = set(re.findall(r"\$\{(\w+):\?", text))
    given = set(re.findall(r"^(\w+)=", (INFRA / "env.example").read_text(), re.MULTILINE))
    assert needed == given


def test_services_depend_on_services_that_are_there():
    services = load("compose.yaml")["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", [])) <= set(services), name


def test_no_file_names_a_registry():
    """A host in front of an image name: something with a dot (or a port) before the first slash."""
    pattern = re.compile(r"(?:image: |FROM |BASE=|newName: )[\w-]+(?:\.[\w.-]+|:\d+)/")
    assert [str(path) for path in FILES if pattern.search(path.read_text())] == []


def test_images_are_not_built_or_run_by_root():
    for name in ("docker/Dockerfile", "docker/Dockerfile.server"):
        users = re.findall(r"^USER (\w+)", (INFRA / name).read_text(), re.MULTILINE)
        assert users, name
        assert users[-1] != "root", name
    pod = next(yaml.safe_load_all((INFRA / "kubernetes/worker.yaml").read_text()))["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_the_image_copies_what_is_there():
    dockerfile = (INFRA / "docker/Dockerfile").read_text()
    ignored = (INFRA / "docker/Dockerfile.dockerignore").read_text()
    for line in re.findall(r"^COPY (?!--)(.+)$", dockerfile, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored.splitlines(), f"{source} is not sent to the builder"


def test_what_starts_without_our_code_calls_nobody_either():
    """The switches of `spiritlm_core.telemetry`, where programs start that never import it."""
    dockerfile, server = ((INFRA / name).read_text() for name in ("docker/Dockerfile", "docker/Dockerfile.server"))
    assert [name for name, value in OFF.items() if not re.search(rf"\b{name}={value}\b", dockerfile)] == []
    for name in ("DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED"):
        assert f"{name}={OFF[name]}" in server
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        assert deployment["work_pool"]["job_variables"]["env"] == OFF, deployment["name"]
    exported = dict(re.findall(r'(\w+)="\$\{\w+:-(\w+)\}"', (INFRA / "docker/worker.sh").read_text()))
    assert {name: value for name, value in exported.items() if not name.startswith("PREFECT_")} == {
        name: OFF[name] for name in ("DO_NOT_TRACK", "RAY_USAGE_STATS_ENABLED")
    }


def test_ray_versions_agree():
    assert load("ray/cluster.yaml")["spec"]["rayVersion"] == PINS["ray"]


def test_the_worker_finds_the_cluster_and_its_secrets():
    cluster = load("ray/cluster.yaml")
    worker = next(yaml.safe_load_all((INFRA / "kubernetes/worker.yaml").read_text()))
    container = worker["spec"]["template"]["spec"]["containers"][0]
    environment = {item["name"]: item for item in container["env"]}
    name = cluster["metadata"]["name"]
    assert environment["RAY_HEAD"]["value"] == f"{name}-head-svc:6379"
    assert environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == name
    secret = load("kubernetes/kustomization.yaml")["secretGenerator"][0]["name"]
    assert container["envFrom"] == [{"secretRef": {"name": secret}}]
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        assert group["template"]["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": secret}}]


def test_kustomize_resources_are_there():
    folder = INFRA / "kubernetes"
    kustomization = load("kubernetes/kustomization.yaml")
    assert all((folder / name).is_file() for name in kustomization["resources"])
    assert (folder / "secret.example.env").is_file()


def test_ci_examples_start_deployments_that_exist():
    deployed = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    known = {f"{item['entrypoint'].rpartition(':')[2]}/{item['name']}" for item in deployed}
    for path in sorted((INFRA / "ci").glob("*.yml")):
        for name in re.findall(r"\b(?:pipeline|corpus|train|evaluate)/\w+", path.read_text()):
            assert name in known, f"{path.name}: {name}"
        assert "infra/ci/trigger.sh" in path.read_text()
