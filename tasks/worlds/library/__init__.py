"""The worlds that come along."""
