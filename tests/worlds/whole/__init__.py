"""Whole worlds, one a file: apart from the tests, whose threads and globals are no part of them."""
