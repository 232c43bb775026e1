"""The page people read, and the tables at the end of `make repro`."""
