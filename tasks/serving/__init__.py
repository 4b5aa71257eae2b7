"""A checkpoint as whoever serves it offers it: each package is a way to be played so, `<step>.as_served` chooses one.

A package states `Params`; one that plays has a module `player` with `playing`, and ENGINE, the engine of `tasks/players/local` with
which it generates.
"""
