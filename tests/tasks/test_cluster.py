"""A Ray that does not answer or does not start is one sentence, and soon."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from spiritlm_core.errors import SpiritLMError, TrainingError
from spiritlm_core.lm.config import LmCompute
from tasks import train
from tasks.executors import cluster
from tasks.executors.cluster import NoRoomError, Runtime, room_for
from tasks.worker import Wish

ROOT = Path(__file__).parents[2]


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_nobody_listens_at_the_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SpiritLMError, match=rf"no Ray cluster answers at 127.0.0.1:{port} \(Connection refused\)"):
        Runtime(f"127.0.0.1:{port}").start()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_something_else_listens_at_the_address(listener, answer):
    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    with pytest.raises(SpiritLMError, match="no Ray cluster answers .*something else listens there"):
        Runtime(f"127.0.0.1:{listener.getsockname()[1]}").start()


def test_a_listener_that_says_nothing_is_not_waited_for(listener, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.2)
    with pytest.raises(SpiritLMError, match="no Ray cluster answers .*timed out"):
        Runtime(f"127.0.0.1:{listener.getsockname()[1]}").start()


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:", ":6379", "head:port"])
def test_an_address_is_host_and_port(address):
    with pytest.raises(SpiritLMError, match="the address of the Ray cluster is HOST:PORT, not"):
        Runtime(address).start()


@pytest.mark.parametrize(
    ("here", "later", "wish", "room"),
    [
        ([(2, 0), (3, 0)], [], Wish("s", 1), 5),
        ([(2, 0), (3, 0)], [], Wish("s", 2), 2),
        ([(0, 0)], [({"CPU": 8}, 4)], Wish("s", 2), 16),
        ([(4, 1), (4, 0)], [], Wish("s", 1, 0.5), 2),
        ([(1, 0), (1, 0)], [], Wish("s", 2), None),
        ([(8, 0)], [], Wish("s", 1, 1), None),
        ([(0, 0)], [({"CPU": 8}, 0)], Wish("s", 1), None),
    ],
)
def test_the_room_for_workers_is_counted_by_machine(monkeypatch, here, later, wish, room):
    monkeypatch.setattr(cluster, "nodes", lambda: [({"CPU": cpus, "GPU": gpus}, 1) for cpus, gpus in here])
    monkeypatch.setattr(cluster, "to_come", lambda: later)
    if room is None:
        with pytest.raises(NoRoomError, match=r"stage s wants \d CPUs.*on one machine; the largest node .* CPUs"):
            room_for(wish)
    else:
        assert room_for(wish) == room


def test_custom_resources_count(monkeypatch):
    machines = [({"CPU": 8, "steady": 1}, 1), ({"CPU": 64}, 1), ({"CPU": 4, "steady": 1}, 1)]
    monkeypatch.setattr(cluster, "nodes", lambda: machines)
    monkeypatch.setattr(cluster, "to_come", list)
    steady = Wish("s", 2, custom={"steady": 0.25})
    assert (room_for(steady), room_for(steady, together=True)) == (4 + 2, 4)
    expected = "stage s wants 2 CPUs and 3 steady on one machine; the largest node of the Ray cluster has 8 CPUs and 1"
    with pytest.raises(NoRoomError, match=expected):
        room_for(Wish("s", 2, custom={"steady": 3}))


class Work:
    """As much of a job as the search for room looks at."""

    def __init__(self, work, **compute):
        self.work, self.compute = work, LmCompute(**compute)


@pytest.mark.parametrize(
    ("here", "compute", "cpus"),
    [
        ([2, 2], {"workers": 1}, 2),
        ([4, 4], {"workers": 2}, 3),
        ([3, 3, 3], {"workers": 3}, 2),
        ([8, 1], {"workers": 2}, 4),
        ([1], {"workers": 1}, 1),
        ([8], {"workers": 2, "cpus_per_worker": 1}, 1),
        ([2, 4], {"workers": 3, "placement": "strict_pack"}, 1),
        ([2, 2], {"workers": 1, "cpus_per_worker": 3}, None),
        ([2, 2], {"workers": 5}, None),
    ],
)
def test_training_asks_for_what_its_machines_can_hold(monkeypatch, tmp_path, here, compute, cpus):
    for module in (cluster, train):
        monkeypatch.setattr(module, "nodes", lambda: [({"CPU": count}, 1) for count in here])
        monkeypatch.setattr(module, "to_come", list)
    if cpus is None:
        with pytest.raises(TrainingError, match="do not fit on the machines that are up .2 CPUs and 0 GPUs, 2 CPUs"):
            train._wish(Work(tmp_path, **compute))
    else:
        assert train._wish(Work(tmp_path, **compute)).cpus == cpus


def test_training_whose_machines_are_gone_is_not_waited_for(monkeypatch, tmp_path):
    monkeypatch.setattr(train, "SHRUNK_SECONDS", 0.0)
    monkeypatch.setattr(train, "POLL_SECONDS", 0.05)
    for module in (cluster, train):
        monkeypatch.setattr(module, "nodes", lambda: [({"CPU": 1}, 1)])
        monkeypatch.setattr(module, "to_come", list)
    never = threading.Event()
    trainer = type("Waiting", (), {"fit": lambda self: never.wait()})()
    with pytest.raises(TrainingError, match="2 workers of 2 CPUs and 0 GPUs each do not fit"):
        train._follow(trainer, Work(tmp_path, workers=2), Wish("training", 2), lambda *_: None)
    never.set()


SLOW_AGENT = """
import sys, time
if any("agent.py" in part or "agent/main.py" in part for part in getattr(sys, "orig_argv", ())):
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_ray_that_does_not_start_is_tried_again_and_then_one_sentence(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SLOW_AGENT)
    code = "from tasks.executors.cluster import Runtime; from spiritlm_core.errors import SpiritLMError\n"
    code += "try:\n    Runtime().start()\nexcept SpiritLMError as error:\n    print(error)\n"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("Ray did not start in 3 tries; it last said: "), done.stdout + done.stderr
    assert done.stdout.count("\n") == 1
    assert "raylet.err" in done.stdout, "the cause is the last line of the node's own log"
    assert "Traceback" not in done.stderr


IN_SMALL_MEMORY = """
from spiritlm_core.lake.lake import Lake
from tests.lake.stages import DoubleConfig
from tests.tasks import work
import shutil, sys
print(shutil.disk_usage("/dev/shm").total, len(work.run(Lake(sys.argv[1]), DoubleConfig(), executor="ray")[1]))
"""


@pytest.mark.slow
def test_ray_works_where_dev_shm_is_as_small_as_in_a_container(tmp_path):
    small = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'
    private = ["unshare", "--mount", "bash", "-c", small, "bash"]
    if not shutil.which("unshare") or subprocess.run([*private, "true"], check=False, capture_output=True).returncode:
        pytest.skip("only root may have another /dev/shm")
    command = [*private, sys.executable, "-c", IN_SMALL_MEMORY, str(tmp_path / "lake")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(64 << 20), "4"], done.stdout + done.stderr
