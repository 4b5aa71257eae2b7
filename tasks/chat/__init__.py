"""How a conversation becomes tokens and a generated turn becomes a message, and the proof that training and serving agree."""
