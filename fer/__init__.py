"""Facial-expression recognition: from raw AffectNet / FER2013 files to a trained, measured model."""
