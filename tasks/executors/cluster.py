"""A Ray runtime: a cluster that is joined, or a private one that is started; and what its machines can hold."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spiritlm_core.errors import SpiritLMError
from tasks.worker import QUIET, Wish

STARTS = 3  # ray gives its helpers 15 s and itself 30 s to come up, which a busy machine or a cold disk can exceed
CONNECT_SECONDS = 10.0
_SETTINGS = b"\x04"
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS + bytes(5)
"""How a client of gRPC, which Ray's head speaks, begins (RFC 9113, 3.4); the server answers with its settings."""

_RAY = {"RAY_TRAIN_V2_ENABLED": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
UNLIMITED = 1 << 20
Machine = tuple[Mapping[str, float], int]  # resources of a kind of machine, and how many there may be


class NoRoomError(SpiritLMError):
    """No machine of the cluster can hold what is wished for."""


class Runtime:
    """Ray, as long as a run lasts; it starts when it is first needed."""

    def __init__(self, address: str | None = None) -> None:
        """`address` is that of a cluster; default: RAY_ADDRESS, else a private runtime on this machine."""
        self.address = address or os.environ.get("RAY_ADDRESS") or None
        self._started_here = False

    @property
    def is_private(self) -> bool:
        """Whether the runtime is on this machine and for this run alone."""
        return self.address is None

    def start(self) -> None:
        """Start or join Ray if it does not run here yet. Raises SpiritLMError if it cannot be."""
        os.environ.update({**QUIET, **_RAY, **os.environ})  # workers inherit them
        if self.is_private and "RAY_AUTH_MODE" not in os.environ:
            os.environ.update(_private_access())
        import ray

        if ray.is_initialized():
            return
        # Ray prints what befalls its workers, up to 25 lines each; we say it ourselves, in one.
        ray._private.worker.print_to_stdstream = lambda *_, **__: None  # noqa: SLF001
        if self.address is None:
            _start_private()
        else:
            _join(self.address)
        self._started_here = True

    def close(self) -> None:
        """Leave Ray, which ends a private one, if it was started here."""
        if self._started_here:
            import ray

            ray.shutdown()
            self._started_here = False


def _private_access() -> dict[str, str]:
    """A token of our own: a private runtime, too, listens on every interface, and would run anybody's code.

    Ray reads the mode when it is imported; a program that did that before us has chosen for itself.
    """
    if "ray" in sys.modules:
        return {"RAY_AUTH_MODE": "disabled"}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _init(address: str, **more: Any) -> None:
    import ray

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **more)


def _start_private() -> None:
    import ray
    from ray._private import services

    # Without a dashboard this server only asks the cloud's metadata service where it is, for usage statistics.
    services.start_api_server = lambda *_, **__: (None, None)
    for _ in range(STARTS):
        try:
            return _init("local", include_dashboard=False)
        except Exception as error:  # noqa: BLE001 - Ray raises a bare Exception
            ray.shutdown()
            why = _last_words() or " ".join(str(error).split())[:300]
    raise SpiritLMError(
        f"Ray did not start in {STARTS} tries; it last said: {why.rstrip('.')}. Is the machine busy, or its disk slow? "
        "Run again to go on, or without Ray: --set compute.executor=auto"
    )


def _last_words() -> str:
    """What the node of our last private Ray said when it gave up, and in which file; empty if it said nothing."""
    from ray._common.utils import get_default_ray_temp_dir

    temp = Path(get_default_ray_temp_dir())  # type: ignore[no-untyped-call]
    for log in sorted(temp.glob(f"session_*_{os.getpid()}/logs/raylet.err"))[-1:]:
        said = [line.partition("(raylet)")[2] for line in log.read_text(errors="replace").splitlines()]
        for line in filter(None, reversed(said)):  # the others are a stack of C++
            return f"{line.rpartition('Check failed: ')[2].strip()[:250]} ({log})"
    return ""


def _join(address: str) -> None:
    _check_listens(address)
    try:
        _init(address)
    except Exception as error:
        raise SpiritLMError(
            f"cannot join the Ray cluster at {address} ({' '.join(str(error).split())[:300]}); is it up, is this "
            "machine one of its nodes, and are RAY_AUTH_MODE and RAY_AUTH_TOKEN those of the cluster?"
        ) from error
    os.environ.setdefault("RAY_ADDRESS", address)  # where Ray Train looks, and we: it is no private one


def _check_listens(address: str) -> None:
    """Ray itself would try for minutes."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise SpiritLMError(f"the address of the Ray cluster is HOST:PORT, not {address!r}: see RAY_ADDRESS")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS) as connection:
            connection.sendall(_GREETING)
            if connection.recv(9)[3:4] != _SETTINGS:
                raise ConnectionError("something else listens there")
    except OSError as error:
        raise SpiritLMError(
            f"no Ray cluster answers at {address} ({error.strerror or error}): start it, or correct or unset "
            "RAY_ADDRESS or compute.ray_address"
        ) from error


# --- what fits ------------------------------------------------------------------------------------------------


def nodes() -> list[Machine]:
    """The machines that are up."""
    import ray

    return [(node["Resources"], 1) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def to_come() -> list[Machine]:
    """The kinds of machines that an autoscaler starts when there is work for them."""
    from ray._private.state import state

    config = state.get_cluster_config()
    groups = config.node_group_configs if config else ()
    return [(dict(g.resources), UNLIMITED if g.max_count < 0 else g.max_count) for g in groups]


def room_for(wish: Wish, *, together: bool = False) -> int:
    """How many workers with this wish fit on the cluster as it is or as it can become; `together`: on one machine.

    Raises NoRoomError: none ever does.
    """
    here, later = nodes(), to_come()
    if together:
        return max(_fit((resources, 1), wish) for resources, _ in here + later)
    room = max(sum(_fit(machine, wish) for machine in machines) for machines in (here, later))
    if room:
        return room
    wanted = wish.reserved
    largest = max(
        (resources for resources, _ in here + later), key=lambda r: [r.get(kind, 0) for kind in reversed(wanted)]
    )
    raise NoRoomError(
        f"stage {wish.stage} wants {amounts(wanted)} on one machine; the largest node of the Ray cluster has "
        f"{amounts({kind: largest.get(kind, 0) for kind in wanted})}: add a larger node and run again"
    )


def _fit(machine: Machine, wish: Wish) -> int:
    resources, count = machine
    each = [resources.get(kind, 0) // amount for kind, amount in wish.reserved.items()]
    return count * int(min(each, default=UNLIMITED))


def amounts(wanted: Mapping[str, float]) -> str:
    """Amounts by kind: ``2 CPUs and 0.5 GPUs``."""
    return " and ".join(f"{amount:g} {kind}{'s' * (kind in ('CPU', 'GPU'))}" for kind, amount in wanted.items())
