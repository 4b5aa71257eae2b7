"""An API that exists becomes a project in one command (`cairn init --from`): what it is, what its tools do, which files of
it come along, and the world that is written around it."""
