"""Nothing is played as it is served."""

from __future__ import annotations

from tasks.contract import params as base


class Params(base.Params):
    """There is nothing to choose."""
