"""A video of 10,000 frames with a face in it: memory stays flat, and the face is one track from end to end."""

import threading

import cv2
import numpy as np
import psutil
import pytest

from fer.api import predict
from tests.conftest import fit, train_config, write_tiny
from tests.prediction.test_run import HAAR, drawn, read

FRAMES = 10_000


def write_video(path):
    """A face that goes 30 pixels to the right and back, a pixel a frame, in 160 x 120."""
    face = drawn(120, 120, (60, 60), 25)[:, :, ::-1]
    frames = []
    for x in [*range(30), *range(30, 0, -1)]:
        frame = np.full((120, 160, 3), (160, 170, 150), np.uint8)
        frame[:, x : x + 120] = face
        frames.append(frame)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 120))
    for index in range(FRAMES):
        writer.write(frames[index % 60])
    writer.release()


class Memory(threading.Thread):
    """Notes the memory of this process, MiB, ten times a second."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen, self._over = [], threading.Event()

    def run(self):
        while not self._over.wait(0.1):
            self.seen.append(psutil.Process().memory_info().rss / 2**20)

    def end(self):
        self._over.set()
        self.join()
        return self.seen


@pytest.mark.slow
def test_memory_is_flat_and_the_track_one(tmp_path):
    file = write_tiny(tmp_path / "tiny.h5", {"train": 70, "val": 40})
    fit(train_config(file, **{"trainer.max_epochs": 1}), tmp_path / "run")
    write_video(tmp_path / "clip.avi")
    keys = {
        "source": str(tmp_path / "clip.avi"), "ckpt": str(tmp_path / "run/checkpoints/best.ckpt"),
        "out": str(tmp_path / "out"), "min_confidence": None, "draw": True, "show": False, "anonymize": False,
        "explain": False, "layer": None, "every_n": 1, "search_every": 5, "smooth": 0.5, "batch": 16, "device": "cpu",
        "margin": None, "tta": False, "strict": False, "classes": None, "embed": False,
    }  # fmt: skip
    memory = Memory()
    memory.start()
    assert predict(keys, HAAR) == 0
    seen = memory.end()
    rows = read(tmp_path / "out")
    assert [row["frame"] for row in rows] == list(range(FRAMES)) and {row["track"] for row in rows} == {1}
    # the first fifth is imports and buffers that fill; a frame is 56 KiB, so 10,000 that were kept would be 550 MiB
    early, late = np.median(seen[len(seen) // 5 : len(seen) // 2]), np.median(seen[-len(seen) // 5 :])
    assert late - early < 30, f"{early:.0f} MiB, then {late:.0f}"
