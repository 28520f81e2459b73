"""The checks before anything is built."""
