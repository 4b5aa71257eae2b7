"""Helpers that several papers of the rl room share."""
