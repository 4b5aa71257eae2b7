"""Rows of experts in environments need nothing but their method and `tasks/environments`."""
