"""Serving a checkpoint that was opened, until Ctrl-C."""

from __future__ import annotations

import errno
import socket

from tasks.contract.params import BadInput
from tasks.serving.endpoint.app import Served


def check_port(host: str, port: int) -> None:
    """BadInput for an address at which nothing can be served."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise BadInput(f"--port {port}: another program listens there at {host}. Take another one: --port {port + 1}") from None
            raise BadInput(f"--host {host} --port {port}: {error.strerror or error}") from None


def serve(served: Served, host: str, port: int) -> None:
    """Answer until the process is told to end."""
    import uvicorn

    from tasks.serving.endpoint.app import make

    uvicorn.run(make(served), host=host, port=port, log_level="warning")
