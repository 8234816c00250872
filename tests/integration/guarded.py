"""Processes whose every attempt to reach another machine is written down, those of native libraries included."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import REPOSITORY

_ADDRESS = re.compile(r'sin6?_port=htons\((\d+)\).*?(?:inet_addr\(|inet_pton\(AF_INET6, )"([^"]+)"')
_CALLS = "trace=connect,sendto,sendmsg,sendmmsg"


@dataclass(frozen=True)
class Guard:
    """Two watchers: the audit hook of every Python process, and strace (Linux, where it may trace) for the rest."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """For the processes to be watched."""
        path = f"{Path(__file__).parent / 'guard'}:{REPOSITORY}"
        return {"PYTHONPATH": path, "NETWORK_LOG": str(self.folder / "python.log")}

    @property
    def prefix(self) -> list[str]:
        """What to write in front of a command."""
        if not traces():
            return []
        return ["strace", "-f", "--seccomp-bpf", "-qq", "-e", _CALLS, "-o", str(self.folder / "strace.log")]

    def attempts(self) -> list[str]:
        """Every name looked up and every address reached for that is not this machine's own."""
        python, native = self.folder / "python.log", self.folder / "strace.log"
        found = python.read_text().splitlines() if python.exists() else []
        calls = native.read_text(errors="replace").splitlines() if native.exists() else []
        return found + [line for line in calls if any(_outside(*match) for match in _ADDRESS.findall(line))]


def traces() -> bool:
    """Whether strace is there and allowed to trace."""
    command = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", _CALLS, "-o", "/dev/null", "true"]
    return bool(shutil.which("strace")) and subprocess.run(command, check=False, capture_output=True).returncode == 0


def _outside(port: str, address: str) -> bool:
    """Port 53 is a question about a name, even where this machine itself answers it."""
    here = address.startswith("127.") or address in ("::1", "0.0.0.0", "::", "::ffff:127.0.0.1")  # noqa: S104
    return port == "53" or not (here or port == "0")
