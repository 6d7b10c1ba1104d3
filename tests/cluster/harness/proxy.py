"""A proxy between a client and the apiserver that knows bytes only: what cables, routers and firewalls do to a connection.

    with TcpProxy(cluster) as proxy:
        client = cluster.client_of(cluster.proxied_kubeconfig(proxy))
        proxy.swallow()                 # half-open from here on: nothing arrives, nothing is closed
        proxy.restore()                 # new connections work again

http_proxy.py has the one that knows requests.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import Any, Self


class TcpProxy:
    """Copies bytes between clients and the apiserver of a cluster."""

    def __init__(self, cluster: Any):
        self._upstream = (cluster.advertise_address, cluster.port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._half_ended: set[tuple[socket.socket, socket.socket]] = set()
        self._silent: set[socket.socket] = set()
        self._swallows_new = False
        self._refuses = False
        self._delay_seconds = 0.0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # close() alone would leave the accepting thread asleep for ever.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def swallow(self, *, new_too: bool = True) -> None:
        """From now on bytes of the open connections vanish, both ways, and nobody is told; with `new_too`, of new ones also.

        What was swallowed once stays silent for ever, as after a firewall that lost its table.
        """
        with self._lock:
            self._swallows_new = new_too
            self._silent.update(end for pair in self._pairs for end in pair)

    def restore(self) -> None:
        """New connections work again, at full speed."""
        with self._lock:
            self._swallows_new = self._refuses = False
            self._delay_seconds = 0.0

    def delay(self, seconds: float) -> None:
        """Hold every piece of data back for so long, each way."""
        self._delay_seconds = seconds

    def cut(self) -> None:
        """Reset all open connections."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
            self._silent.clear()
        for pair in pairs:
            for end in pair:
                reset(end)

    def refuse(self) -> None:
        """Reset all open connections, and new ones as soon as they are made."""
        self._refuses = True
        self.cut()

    @property
    def connections(self) -> int:
        """How many are open."""
        with self._lock:
            return len(self._pairs)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refuses:
                reset(client)
                continue
            try:
                server = socket.create_connection(self._upstream, timeout=10)
            except OSError:  # the apiserver is down: so are we
                reset(client)
                continue
            server.settimeout(None)
            pair = (client, server)
            with self._lock:
                self._pairs.append(pair)
                if self._swallows_new:
                    self._silent.update(pair)
            for source, target in (pair, pair[::-1]):
                threading.Thread(target=self._copy, args=(source, target, pair), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        try:
            while data := source.recv(65536):
                if self._delay_seconds:
                    time.sleep(self._delay_seconds)
                if source not in self._silent:
                    target.sendall(data)
            if source in self._silent:
                return  # even the end of a silent connection is not heard of
            target.shutdown(socket.SHUT_WR)
        except OSError:
            with self._lock:
                if source in self._silent or pair not in self._pairs:
                    return
                self._pairs.remove(pair)
            for end in pair:
                reset(end)
        else:
            self._close_if_done(pair)

    def _close_if_done(self, pair: tuple[socket.socket, socket.socket]) -> None:
        """Once both directions have ended."""
        with self._lock:
            if pair not in self._half_ended:
                self._half_ended.add(pair)
                return
            self._half_ended.discard(pair)
            if pair in self._pairs:
                self._pairs.remove(pair)
        for end in pair:
            end.close()


def reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN, and wake whoever reads from it."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        connection.close()
