"""What rooms, worlds and players say to each other. Imports nothing of ours."""
