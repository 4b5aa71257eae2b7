"""What recipes stand on: tiny tasks, a tiny model, a training loop, scores, and the merge room called on folders.

Everything is seeded and runs on one thread, so that a seed gives the same numbers on one kind of CPU.
"""
