"""Helpers that several papers of the evaluate room share."""
