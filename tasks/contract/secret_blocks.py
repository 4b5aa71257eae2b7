"""Secrets that Prefect keeps in blocks, for whoever holds the name of one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tasks.contract.params import BadInput


def load(name: str, where: str) -> str:
    """The text of a Secret block. Loaded in a thread of its own, which has no event loop whatever the caller has. where: the param that
    names it, for messages. BadInput when there is none of that name."""
    from prefect.blocks.system import Secret

    def text() -> str:
        return str(Secret.load(name).get())  # type: ignore[union-attr]

    try:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(text).result().strip()
    except ValueError:
        raise BadInput(
            f"{where}: Prefect knows no Secret block {name!r}. Make one: prefect block create secret, or in the UI."
        ) from None
