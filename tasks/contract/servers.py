"""Servers that params name: where they are, and where their key is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from tasks.contract.params import BadInput


def no_secrets(config: Mapping[str, Any]) -> str:
    """The key of any server, where there is none."""
    return ""


def check_address(base_url: str, where: str, begins: str) -> SplitResult:
    """The parts of an address; BadInput when it is none, or holds more than an address. where: the section, for the message. begins:
    what follows the param's name in the message when it is none."""
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise BadInput(f"{where}.base_url{begins}")
    if url.username or url.password or url.query or url.fragment:
        raise BadInput(f"{where}.base_url: an address alone, without user, password or anything after ? or #. A key comes by key_env.")
    return url


def check_key(key_env: str, key_block: str, where: str) -> None:
    """Raise BadInput for two keys, or for a name that no environment variable has. The name is never shown: it may be the key."""
    if key_env and key_block:
        raise BadInput(f"{where}: key_env and key_block both say where the key is; keep one")
    if key_env and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", key_env):
        raise BadInput(
            f"{where}.key_env: the NAME of an environment variable (capitals, digits, _), such as OPENAI_API_KEY; never the key"
        )
