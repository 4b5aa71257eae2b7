"""Secret blocks of Prefect, for `tasks.contract.secret_blocks`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


def secret(name: str) -> str:
    """The text of a Secret block. Loaded in a thread of its own, which has no event loop whatever the caller has. LookupError when
    there is none of that name."""
    from prefect.blocks.system import Secret

    def text() -> str:
        return str(Secret.load(name).get())  # type: ignore[union-attr]

    try:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(text).result()
    except ValueError:
        raise LookupError(f"Prefect knows no Secret block {name!r}. Make one: prefect block create secret, or in the UI.") from None
