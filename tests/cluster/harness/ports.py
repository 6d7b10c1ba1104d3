"""Free ports, outside the range that the kernel takes outgoing connections from.

Inside it, a client that tries again and again to reach a server which is down may connect to itself, and keep the port.
"""

from __future__ import annotations

import random
import socket

PORTS = range(18000, 32000)
_given: set[int] = set()


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nobody listens on now and that this process was not given before."""
    for _ in range(200):
        port = random.choice(PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError("no free port was found")
