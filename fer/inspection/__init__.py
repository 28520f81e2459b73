"""What is in a prepared file, as a page."""
