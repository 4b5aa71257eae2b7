"""Helpers that several papers of the merge room share."""
