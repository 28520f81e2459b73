"""The scripts as files, each in a process of its own as a user starts it; other tests run them within theirs."""

import cv2
import numpy as np
import pytest

from fer.data.storage.hdf5 import read_info
from fer.labels import CLASSES
from tests.conftest import write_tiny
from tests.data.test_prepare import fer2013_csv


def test_prepare_writes_a_file(tmp_path, process):
    raw = fer2013_csv(tmp_path / "fer2013.csv", [3] * 7, [1] * 7, [1] * 7)
    done = process("prepare.py", "data=fer2013", f"data.raw={raw}", "data.size=8", cwd=tmp_path)
    assert done.stdout.splitlines()[0].split() == [*CLASSES, "all"]
    assert read_info(tmp_path / "data/fer2013-8-grey.h5").rows("train") == 21


@pytest.mark.parametrize(
    ("script", "argument", "message"),
    [
        (
            "prepare.py",
            "data=fer2031",
            "error: there is no data=fer2031 (did you mean fer2021?): give one of ",
        ),
        ("train.py", "modle=vgg11", "error: there is no key modle (did you mean model?); valid in train: "),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(tmp_path, process, script, argument, message):
    done = process(script, argument, cwd=tmp_path, code=2)
    assert done.stderr.startswith(message) and len(done.stderr.splitlines()) == 1 and not done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_net_is_trained_scored_and_used(tmp_path, process):
    write_tiny(tmp_path / "tiny.h5", {"train": 70, "val": 14})
    data = ["data=fer2013", "data.file=tiny.h5", "data.size=20", "augment.crop=16", "model=vgg_small"]
    short = ["trainer=cpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "hydra.run.dir=run"]
    done = process("train.py", *data, *short, cwd=tmp_path)
    assert "best val/acc" in done.stdout and not done.stderr.count("Traceback")
    done = process("evaluate.py", "ckpt=run/checkpoints/best.ckpt", "device=cpu", cwd=tmp_path)
    assert "confusion matrix: " in done.stdout
    cv2.imwrite(str(tmp_path / "face.png"), np.random.default_rng(0).integers(0, 256, (60, 50), np.uint8))
    use = ["source=face.png", "ckpt=run/checkpoints/best.ckpt", "faces=whole", "device=cpu"]
    done = process("predict.py", *use, cwd=tmp_path)
    assert done.stdout.startswith("faces: each picture is one\n1 file, 1 face, 0 without a face, 0 not read, ")
    assert len((tmp_path / "predictions/best-face/predictions.csv").read_text().splitlines()) == 2
    # the exit code tells of a source that can't be read
    (tmp_path / "zero.png").touch()
    process("predict.py", "source=zero.png", *use[1:], cwd=tmp_path, code=1)
