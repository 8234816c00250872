"""Leases: who is working on the lake now, so that garbage collection never deletes under a running pipeline."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.store import Store

HEARTBEAT_SECONDS = 30.0
EXPIRY_SECONDS = 300.0


@dataclass(frozen=True)
class Lease:
    """One process at work. A lease ends with its process (same host) or when its heartbeat stops."""

    id: str
    kind: Literal["run", "gc"]
    recipe: str
    host: str
    pid: int
    heartbeat: float

    def alive(self) -> bool:
        """Whether the holder still works."""
        if self.host == socket.gethostname():
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return False
            except PermissionError:
                pass
        return time.time() - self.heartbeat < EXPIRY_SECONDS


def live_leases(store: Store) -> list[Lease]:
    """The leases of processes that still work."""
    found = []
    for entry in store.walk("leases"):
        try:
            lease = Lease(**json.loads(store.read(entry.path)))
        except (FileNotFoundError, TypeError, ValueError):
            continue
        if lease.alive():
            found.append(lease)
    return found


@contextmanager
def hold(store: Store, kind: Literal["run", "gc"], recipe: str = "") -> Iterator[Lease]:
    """Hold a lease while the block runs. Raises LakeError if garbage collection is under way (or, for "gc", a run)."""
    lease = Lease(uuid.uuid4().hex, kind, recipe, socket.gethostname(), os.getpid(), time.time())
    _write(store, lease)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(store, lease, stop), daemon=True)
    beat.start()
    try:
        _refuse_conflict(store, lease)
        yield lease
    finally:
        stop.set()
        store.delete(_path(lease))


def _refuse_conflict(store: Store, mine: Lease) -> None:
    for other in live_leases(store):
        if other.id != mine.id and "gc" in (other.kind, mine.kind):
            what = "a run" if other.kind == "run" else "garbage collection"
            raise LakeError(
                f"{what} (pid {other.pid} on {other.host}) works on {store.uri}; try again when it has ended"
            )


def _beat(store: Store, lease: Lease, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        # A missed heartbeat is harmless: the next one repairs it long before the lease expires.
        try:
            _write(store, Lease(**{**asdict(lease), "heartbeat": time.time()}))
        except Exception:  # noqa: BLE001, S112
            continue


def _path(lease: Lease) -> str:
    return f"leases/{lease.id}.json"


def _write(store: Store, lease: Lease) -> None:
    store.write(_path(lease), json.dumps(asdict(lease)).encode())
