"""Model folders: what one holds, how it is loaded and saved, and the tiny model with its tokenizer."""
