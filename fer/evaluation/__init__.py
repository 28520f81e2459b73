"""Scores with intervals, reports, figures, comparisons."""
