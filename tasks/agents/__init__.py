"""Ways of acting: how a player is asked until it has acted, and the trivial agents that problems are held against."""
