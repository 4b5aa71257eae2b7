"""Serving a checkpoint that was opened, until Ctrl-C."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from fastapi import FastAPI

from tasks.contract.params import BadInput
from tasks.serving.endpoint.chat_api import Beside
from tasks.serving.endpoint.served import Served

PATIENCE = 5
"""Seconds that answers under way have to be finished when the server is told to end; ours."""


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


def lines(engines: Sequence[Served], host: str, port: int) -> Iterator[str]:
    """What is served, for whoever started it."""
    yield f"http://{host}:{port}/v1 serves {', '.join(name for one in engines for name in one.names)}. Ctrl-C ends it."
    for served in engines:
        for name in served.names:
            if (chat := served.chat_of(name)) is None:
                yield f"{name}: no chat, token ids alone: {served.no_chat}"
                continue
            worlds, kept = ", ".join(chat.prompting.card["worlds"]), chat.kept.folder
            known = f"as the agent of {worlds}" if worlds else "without a system message of its own: there are no worlds in data/worlds"
            yield f"{name}: chats {known}; what is said is kept {f'in {kept}' if kept else 'nowhere'}"


def serve(engines: Sequence[Served], beside: Beside | None, host: str, port: int, first: Callable[[FastAPI], None] | None) -> None:
    """Answer until the process is told to end. first: see `make`; with it answers under way are waited for, since tools may have been
    called for them."""
    import uvicorn

    from tasks.serving.endpoint.app import make

    app, patience = make(*engines, beside=beside, first=first), None if first else PATIENCE
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=patience)

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            if self.should_exit:
                self.force_exit = True
            elif waiting := len(self.server_state.tasks):
                limit = f"{patience} seconds at most" if patience else "until they are whole, as tools may have been called for them"
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # of answers that are cut off it would show where
                os.write(2, f"cairn: {waiting} under way: waited for {limit}; once more ends at once\n".encode())
            super().handle_exit(sig, frame)

    with suppress(KeyboardInterrupt):  # of the signal, which comes again when the server has ended
        Server(config).run()
