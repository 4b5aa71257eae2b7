"""Worlds of one's own: written from a template, proven by `cairn world check`, played in the terminal."""
