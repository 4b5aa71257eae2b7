"""`python -m flows.cli`: the same as `cairn`."""

from flows.cli import entry

if __name__ == "__main__":
    entry()
