"""Ports on 127.0.0.1: free ones are chosen once and then kept, unless another program has taken one."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000
_TRIES = 200
_FREED_S = 2.0
"""A server that was killed may still hold its port, and even accept, when its process is a zombie already: the threads
of a large one end one by one."""


def choose(names: Sequence[str], kept: Mapping[str, int]) -> dict[str, int]:
    """A port for each name: the kept one while it is free, else one that is free now; all different.

    Chosen below the range that the system takes for outgoing connections: a port out of that range is lost to any
    client of the machine (its own reconnecting ones too) in the moment in which its server restarts."""
    chosen: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        for name in names:
            kept_port = kept.get(name)
            listener = _listen_again(kept_port) if kept_port and kept_port not in chosen.values() else None
            if listener is None:
                listener = _listen_anywhere()
            if listener is None:
                raise OSError("no free port on 127.0.0.1")
            # held until all are chosen, so that no two names get the same
            held.enter_context(listener)
            chosen[name] = listener.getsockname()[1]
    return chosen


def lowest_outgoing() -> int:
    """The first port that the system may take for an outgoing connection."""
    try:
        return int(_OUTGOING.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768  # Linux's default; macOS and Windows begin at 49,152


def _listen_again(port: int) -> socket.socket | None:
    """The kept port, which may be free only in a moment."""
    until = time.monotonic() + _FREED_S
    while (listener := _listen(port)) is None and time.monotonic() < until:
        time.sleep(0.02)
    return listener


def _listen_anywhere() -> socket.socket | None:
    end = lowest_outgoing()
    if end > _LOWEST:
        # by chance, so that two stacks that start at once do not reach for the same
        for _ in range(_TRIES):
            listener = _listen(random.randrange(_LOWEST, end))
            if listener is not None:
                return listener
    return _listen(0)


def _listen(port: int) -> socket.socket | None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # a port whose last connections are still fading away counts as free, as it does for the servers
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(1)
    except OSError:
        listener.close()
        return None
    return listener


def accepts(port: int) -> bool:
    """Whether something listens there now."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
