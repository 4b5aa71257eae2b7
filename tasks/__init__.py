"""The rooms of the road, and what they stand on. `road.py` says the road."""
