"""A small data set that is drawn, so that everything can be tried without a licence or a download."""
