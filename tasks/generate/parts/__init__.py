"""What one method of the room alone needs: a folder for each method, whose name it has, so that no other's key holds it."""
