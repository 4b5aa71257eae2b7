"""The map of the road. Imports nothing, so that anything may import it.

A *stage* is one step of the road and the name of the folder (room) that holds its methods.
The order here is the order of `flows/pipeline.py` and of `dvc.yaml`; a test compares the three.
"""

STAGES = (
    "worlds",
    "base",
    "generate",
    "critique",
    "filter",
    "sft",
    "rl",
    "merge",
    "evaluate",
    "decide",
)
