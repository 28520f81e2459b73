"""Mean average precision of boxes, and a detector's report."""
