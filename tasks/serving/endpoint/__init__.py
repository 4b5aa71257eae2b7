"""The HTTP API of `cairn serve`: a checkpoint that answers chat requests by its agent's card."""
