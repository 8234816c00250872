"""Found by every Python process with this folder on PYTHONPATH: writes down whom it tries to reach outside the machine.

One line ``PID EVENT ADDRESS`` in the file $NETWORK_LOG for each name that is looked up and each address that is
connected to, other than this machine's own.
"""

import ipaddress
import os
import socket
import sys

_LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname")
_SENDS = ("socket.connect", "socket.sendto", "socket.sendmsg")


def _is_here(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if host in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _watch(event: str, arguments: tuple) -> None:
    if event in _LOOKUPS:
        host = arguments[0]
    elif event in _SENDS and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if not _is_here(host):
        with open(os.environ["NETWORK_LOG"], "a") as log:  # noqa: PTH123 - pathlib may not be there yet
            log.write(f"{os.getpid()} {event} {host} {' '.join(sys.argv)[:200]}\n")


if "NETWORK_LOG" in os.environ:
    sys.addaudithook(_watch)
