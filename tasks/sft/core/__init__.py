"""Helpers that several papers of the sft room share."""
