"""Whoever answers for a model's role: a script, a checkpoint in this process, a model behind a server. A folder is named as its
backend."""
