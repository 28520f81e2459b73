"""The page on a YOLO data set: boxes drawn where the labels say, faults by file and line, nothing beside the photos."""

import cv2
import numpy as np
import pytest

from fer.data.readers.yolo.dataset import read_yolo
from fer.data.source import PhotoLimits
from fer.inspection.yolo_page import boxes_figure
from tests.data import yolo_sets
from tests.data.yolo_sets import photo, tree, write


def test_look_draws_the_boxes_and_lists_the_faults(tmp_path, run):
    raw = yolo_sets.roboflow(tmp_path / "set")
    write(tmp_path / "set/train/labels/two_jpg.rf.0a1b2c3d.txt", "1 0.5 0.5 0.25 0.75\n5 0.5 0.5 0.1 0.1\n")
    photo(tmp_path / "set/valid/images/<b>$x$.jpg")
    before = tree(tmp_path / "set")
    done = run("look.py", "data=yolo", f"data.raw={raw}", cwd=tmp_path)
    page = tmp_path / "data/yolo-look/index.html"
    assert f"wrote {page}" in done.stdout and tree(tmp_path / "set") == before
    text = page.read_text()
    assert "6 photos, 5 boxes of 3 classes; 2 photos without any; 1 photo with a label that is lost" in text
    for cell in ("class that is none of 0..2", "5 0.5 0.5 0.1 0.1", "train/labels/two_jpg.rf.0a1b2c3d.txt"):
        assert f"{cell}</t" in text
    for name in ("sheet-train.png", "sheet-val.png", "sheet-test.png", "sheet-amiss.png", "width.png", "height.png"):
        assert f'src="{name}"' in text and cv2.imread(str(page.with_name(name))) is not None
    assert "<b>" not in text and "<script" not in text
    assert (page.with_name("faults.csv")).read_text().count("\n") == 4
    # a second time it takes the place of the first
    run("look.py", "data=yolo", f"data.raw={raw}", cwd=tmp_path)
    write(page.with_name("mine.txt"), "mine")
    done = run("look.py", "data=yolo", f"data.raw={raw}", cwd=tmp_path, code=2)
    assert "look.py did not write mine.txt in it" in done.stderr


def test_a_contact_sheet_has_the_box_where_the_label_says(tmp_path):
    (tmp_path / "set").mkdir()
    cv2.imwrite(str(tmp_path / "set/a.png"), np.full((110, 220, 3), 255, np.uint8))
    write(tmp_path / "set/a.txt", "0 0.5 0.5 0.5 0.4\n")
    write(tmp_path / "set/classes.txt", "x\n")
    data = read_yolo(tmp_path / "set", val_fraction=0)
    figure = boxes_figure(data.splits["train"], data.names, PhotoLimits(), "one")
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[:, :, :3].astype(int)
    # the blue of the first class: edges at a quarter and three quarters of 220 pixels, and 0.3 and 0.7 of 110
    blue = (drawn[:, :, 2] - drawn[:, :, 0]) > 100
    # at a column right of the name, and a row above the lower edge
    rows = np.flatnonzero(blue[:, 120])
    columns = np.flatnonzero(blue[rows.max() - 10])
    assert columns.max() - columns.min() == pytest.approx(110, abs=2)
    assert rows.max() - rows.min() == pytest.approx(44, abs=2)


def test_of_very_many_boxes_some_are_drawn(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((110, 220, 3), 255, np.uint8))
    write(tmp_path / "a.txt", "".join(f"0 0.5 0.5 0.5 {0.1 + i / 100000:.5f}\n" for i in range(30000)))
    write(tmp_path / "classes.txt", "x\n")
    data = read_yolo(tmp_path, val_fraction=0)
    (axes,) = boxes_figure(data.splits["train"], data.names, PhotoLimits(), "one").axes
    assert len(axes.lines) == 200 and axes.texts[0].get_text() == "a.png, 200 of 30,000 boxes"
