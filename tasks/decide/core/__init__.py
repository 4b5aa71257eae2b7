"""Helpers that several methods of the decide room may share."""
