"""What checkpoints that play in this process need of a chat format: rendering to token ids, and parsing what they answer. A folder of
its own, named as the backend is, so that a result depends on it only where a checkpoint plays."""
