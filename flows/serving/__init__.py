"""A checkpoint behind an HTTP API of its own: `cairn serve`."""
