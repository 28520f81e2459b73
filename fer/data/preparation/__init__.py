"""From raw data to a prepared file: which reader, where the decoding runs, what is kept of a killed run."""
