"""Helpers that several papers of the filter room share."""
