"""Leases: who is working on the lake now, so that garbage collection never deletes under a running pipeline.

A process of this machine is at work while it exists. Of one of another machine the store says how long ago it
renewed its lease, by the store's own clock: no two machines' clocks are compared.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from spiritlm_core.errors import LakeError
from spiritlm_core.lake.fingerprint import STRICT, read_object, write_object
from spiritlm_core.names import FileName
from spiritlm_core.store.objects import Store

HEARTBEAT_SECONDS = 30.0
EXPIRY_SECONDS = 300.0


@dataclass(frozen=True)
class Lease:
    """One process at work. `machine` tells machines, their starts and containers apart; `began` is when on it."""

    __pydantic_config__ = STRICT

    id: FileName
    kind: Literal["run", "gc"]
    recipe: str
    host: str
    pid: int
    heartbeat: float
    machine: str = ""
    began: str = ""

    @property
    def place(self) -> str:
        """Where it lies in the store."""
        return f"leases/{self.id}.json"

    def alive(self, silent: float) -> bool:
        """Whether the holder still works, which renewed its lease `silent` seconds ago."""
        if self.began and self.machine == this_machine() and (began := _began(self.pid)) is not None:
            return began == self.began
        return silent < EXPIRY_SECONDS


def this_machine() -> str:
    """This start of this machine, and the process numbers in use here; "" on systems without ``/proc``."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{start} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - no path
    except OSError:
        return ""


def _began(pid: int) -> str | None:
    """When a process began, in ticks since the machine did; "" if there is none that works, None if it is hidden."""
    try:
        state, *values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None if _exists(pid) else ""
    return "" if state in "ZX" else values[18]


def _exists(pid: int) -> bool:
    """Whether there is a process that ``/proc`` does not show (``hidepid``): somebody else's."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def live_leases(store: Store) -> list[Lease]:
    """The leases of processes that still work. One that cannot be read counts as a run until it is old."""
    found, now = [], store.now()
    for entry in store.walk("leases"):
        try:
            lease = read_object(store, Lease, entry.path)
        except FileNotFoundError:
            continue
        except LakeError:
            lease = Lease(PurePosixPath(entry.path).stem, "run", "of a damaged lease", "unknown", 0, 0.0)
        if lease.alive(now - entry.modified):
            found.append(lease)
    return found


@contextmanager
def hold(store: Store, kind: Literal["run", "gc"], recipe: str = "") -> Iterator[Lease]:
    """Hold a lease while the block runs. Raises LakeError if garbage collection is under way (or, for "gc", a run)."""
    pid = os.getpid()
    machine = this_machine()
    lease = Lease(uuid.uuid4().hex, kind, recipe, socket.gethostname(), pid, time.time(), machine, _began(pid) or "")
    write_object(store, lease)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(store, lease, stop), daemon=True)
    beat.start()
    try:
        _refuse_conflict(store, lease)
        yield lease
    finally:
        stop.set()
        beat.join(HEARTBEAT_SECONDS)  # a late heartbeat would leave the lease behind
        store.delete(lease.place)


def _refuse_conflict(store: Store, mine: Lease) -> None:
    for other in live_leases(store):
        if other.id != mine.id and "gc" in (other.kind, mine.kind):
            what = "a run" if other.kind == "run" else "garbage collection"
            raise LakeError(
                f"{what} (pid {other.pid} on {other.host}, {other.place}) works on {store.uri}; "
                "try again when it has ended"
            )


def _beat(store: Store, lease: Lease, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        # A missed heartbeat is harmless: the next one repairs it long before the lease expires.
        try:
            write_object(store, replace(lease, heartbeat=time.time()))
        except Exception:  # noqa: BLE001, S112
            continue
