"""A checkpoint in this process: the decoder and the client over it."""
