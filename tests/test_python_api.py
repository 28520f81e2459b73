"""docs/python_api.md: its examples, run in their order as one program."""

import os
import re
import subprocess
import sys

import cv2
import numpy as np
import skimage.data
from PIL import Image

from fer.labels import CLASSES
from fer.prediction.table import columns
from tests.conftest import ROOT, fit, train_config, write_tiny

PAGE = (ROOT / "docs/python_api.md").read_text()


def test_the_examples_run_in_a_folder_with_the_files_they_name(tmp_path):
    photo = skimage.data.astronaut()
    (tmp_path / "photos").mkdir()
    for name, picture in (("photo.jpg", photo), ("photos/one.png", photo), ("face.jpg", photo[62:178, 166:282])):
        Image.fromarray(picture).save(tmp_path / name)
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for _ in range(2):
        writer.write(np.full((240, 320, 3), 120, np.uint8))
    writer.release()
    file = write_tiny(tmp_path / "tiny.h5", {"train": 70, "val": 21, "test": 21})
    fit(train_config(file, **{"trainer.max_epochs": 1}), tmp_path / "run")
    (tmp_path / "run/checkpoints/best.ckpt").rename(tmp_path / "best.ckpt")
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 7
    program = "\n".join([*blocks, "print(list(result.to_pandas().columns), probabilities.shape)"])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{list(columns(CLASSES))} torch.Size([1, 7])"
    assert re.search(r"test/acc +│ +0[.]", done.stdout) and "(256,)" in done.stdout
    (crop,) = (tmp_path / "crops").rglob("*.png")
    assert crop.parent.name in CLASSES
