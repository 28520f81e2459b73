"""From a photo, video or camera to named faces."""
