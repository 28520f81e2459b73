"""The page in the browser, and who may ask it."""
