"""A checkpoint as whoever serves it offers it."""
