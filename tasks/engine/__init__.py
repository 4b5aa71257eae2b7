"""Plumbing: keys, store, plan, processes, settings and tracking; nobody needs to read it to add a paper.

Every process that runs anything comes by here, so here layers below get what they may not know.
"""

from tasks.contract import secret_blocks
from tasks.engine import prefect_blocks

secret_blocks.opened_by(prefect_blocks.secret)
