"""Scripted players: deterministic, with a declared catalogue of systematic errors."""
