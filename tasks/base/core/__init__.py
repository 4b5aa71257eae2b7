"""Helpers that several methods of the base room share."""
