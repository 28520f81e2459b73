"""What a training run is in either engine: its start, progress, scores and end."""
