"""Worlds in the hands of other frameworks: `cairn world export` writes a folder, and the modules here are what runs out of it there.

All of them judge by `World.grade`, so Cairn's code has to be importable where they run. Only the modules of this package import their
framework; nothing else of Cairn imports those.
"""
