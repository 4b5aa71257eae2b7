"""Training that fits: what the loops of rooms share to train large models in little memory, exactly as they would in much."""
