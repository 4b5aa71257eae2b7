"""Conversations that were recorded elsewhere: read, brought into one form, masked, and checked against a world."""
