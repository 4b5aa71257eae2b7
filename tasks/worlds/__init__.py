"""Worlds: typed tools, a policy text, tables, problems, and the one runtime that resets, calls, hashes and grades them.

`api` is what a world is made of and what plays it, `adapters` make worlds out of foreign objects and servers, `library` holds the
worlds that come along. As a room it has two methods: `freeze`, and `environments` for small worlds that are no conversation
(`tasks/environments`).
"""

INPUTS: tuple[str, ...] = ()
"""What a step in this room reads: the result of one step of each room named here; model: one that leaves a checkpoint; models: some."""
CODE = ("tasks/contract", "tasks/worlds")
"""Folders that count whole: any world, wherever it lies, may be built on any part of them."""
NOT_COMPARED = "not_compared"
"""In metrics: the worlds of which no state is read, so that nothing says whether it is what it should be; and what is graded there."""
GRADED_WITHOUT_STATE = (
    "its state is not compared: a conversation is graded by required calls (every write of the ground truth with its arguments) and "
    "outputs, so a write too many, or one in other words, is not told apart"
)
UNSEEN = "unseen"
"""Folder, in a step's artifact, of the worlds that are evaluated and from which nothing is ever made or learned. Steps of rooms whose
interface does not say READS_UNSEEN get the artifact without it, in their keys too."""
