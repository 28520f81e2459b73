"""Videos that the tests of reading them share."""

import cv2
import numpy as np


def write_video(path, frames=20, fps=10.0, size=(64, 48), codec="mp4v"):
    """Frame i has the grey level 10 * i, which survives the compression within a few levels."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
    for index in range(frames):
        writer.write(np.full((size[1], size[0], 3), 10 * index, np.uint8))
    writer.release()
    return path
