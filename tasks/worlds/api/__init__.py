"""What a world is made of, and the runtime that plays and grades it."""
