"""Keys of model servers: from an environment variable or a Prefect Secret block, and from there to the header of a call alone.

A key stands in no param, row, log or file. Params hold the *name* of the variable or of the block.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tasks.contract import secret_blocks
from tasks.contract.params import BadInput


def check(role: Mapping[str, Any], where: str) -> None:
    """Raise BadInput when a role's server needs a key that this process's environment lacks. `where` names the role in the params.

    A Prefect block is not looked for: that takes its server, which may start with the run.
    """
    name = role["key_env"]
    if role.get("backend", "openai_compatible") == "openai_compatible" and name and not os.environ.get(name, "").strip():
        raise BadInput(f"{where}.key_env: the environment variable {name} is not set. Set it to the key of {role['base_url']}.")


def of(role: Mapping[str, Any]) -> str:
    """The key of a role's server; empty when it needs none. BadInput when it cannot be had."""
    if name := role["key_env"]:
        check(role, "roles")
        return os.environ[name].strip()
    return secret_blocks.load(role["key_block"], "key_block") if role["key_block"] else ""
