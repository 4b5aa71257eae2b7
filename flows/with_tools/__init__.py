"""`cairn serve --with-tools WORLD`: the server makes the agent's calls itself, on what is really behind a world."""
