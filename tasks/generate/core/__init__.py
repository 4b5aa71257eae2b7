"""Helpers that several papers of the generate room share."""
