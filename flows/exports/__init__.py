"""Conversations as data sets that other trainers read: the formats, the rows' sources and the card."""
