"""The surroundings of a method's run: seeds by name, and a role that was not given."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.contract.context import Context, seed_of


def test_seeds_are_named_and_stable() -> None:
    """By hand: blake2b-64 of 'a<US>1', shifted right by one."""
    import hashlib

    assert seed_of("a", 1) == int.from_bytes(hashlib.blake2b(b"a\x1f1", digest_size=8).digest(), "big") >> 1
    assert seed_of("a", 1) != seed_of("a1") and 0 <= seed_of("x") < 2**63


def test_a_context_without_roles_says_so(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="asked for the model role 'judge'"):
        Context(0, tmp_path, tmp_path).role("judge")
