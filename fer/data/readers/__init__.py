"""One reader for each layout of raw data: rows, read cheaply, and their faces, decoded in parallel."""
