"""What `cairn world new` copies: a small world that works, and its tests. Ordinary modules, checked like all others."""
