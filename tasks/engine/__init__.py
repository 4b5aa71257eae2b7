"""Plumbing: keys, store, plan, processes, settings and tracking; nobody needs to read it to add a paper."""
