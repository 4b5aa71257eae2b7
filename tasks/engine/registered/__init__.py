"""What a registered version holds to work where it is loaded, without Cairn: the agent's card, and the code that acts by it."""
