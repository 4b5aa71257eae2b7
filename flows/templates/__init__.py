"""What `cairn world new` and `cairn init` write beside a world: its tests, a module that is checked like all others, and a page."""
