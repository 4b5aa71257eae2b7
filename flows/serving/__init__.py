"""`cairn serve`: what it is told to serve, and answers that it kept."""
