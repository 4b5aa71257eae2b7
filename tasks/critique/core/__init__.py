"""Helpers that several papers of the critique room share."""
