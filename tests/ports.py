"""Ports on loopback for servers that are started as processes."""

from __future__ import annotations

import socket
import subprocess
import time


def free() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listening(port: int, server: subprocess.Popen[bytes], seconds: float = 15.0) -> None:
    """Wait until the server answers; fails when it ends before."""
    deadline = time.monotonic() + seconds
    while True:
        assert server.poll() is None, f"{server.args!r} ended with {server.returncode}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, f"{server.args!r} does not listen"
        time.sleep(0.05)
