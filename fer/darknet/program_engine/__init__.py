"""The darknet program driven: found, started, watched, and its output read as numbers."""
