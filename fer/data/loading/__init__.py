"""From a prepared file to batches: the data module and the order of the rows."""
