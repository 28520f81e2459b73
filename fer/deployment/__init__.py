"""A checkpoint as a file for other programs."""
