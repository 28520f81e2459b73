"""Public layouts of YOLO data sets in miniature: drawn faces, and where each layout keeps photos, labels and names.

Every layout holds the same five photos: two of train with two faces and one, one of train without faces, one of val
and one of test. No name here holds a word that the programs replace in paths.
"""

import cv2
import numpy as np

from fer.data.synthetic.face import Face, draw_face

WIDTH, HEIGHT = 120, 80
NAMES = ["happiness", "sad", "Anger"]
#: Stem -> split and label lines; a face's box is 40 x 40 pixels at 10, 20 or 70, 20, or 30 x 60 at 45, 10.
PHOTOS = {
    "one": ("train", ["0 0.25 0.5 0.333333 0.5", "2 0.75 0.5 0.333333 0.5"]),
    "two": ("train", ["1 0.5 0.5 0.25 0.75"]),
    "none": ("train", []),
    "three": ("val", ["2 0.25 0.5 0.333333 0.5"]),
    "four": ("test", ["0 0.5 0.5 0.25 0.75"]),
}


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def photo(path, lines=(), seed=0):
    """Write a photo of WIDTH x HEIGHT pixels with a drawn face in each box."""
    rng = np.random.default_rng(seed)
    image = rng.integers(40, 200, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    for line in lines:
        _, x, y, width, _ = map(float, line.split())
        draw_face(image, Face((x * WIDTH, y * HEIGHT), width * WIDTH / 2.25, (0, 0, 0), {}), rng)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png" if path.suffix.lower() == ".png" else ".jpg", image)[1].tobytes())
    return path


def fill(place):
    """Write photos and labels where ``place(split, stem)`` says: the paths of both; no label file of no faces."""
    for seed, (stem, (split, lines)) in enumerate(PHOTOS.items()):
        picture, label = place(split, stem)
        photo(picture, lines, seed)
        if lines:
            write(label, "".join(f"{line}\n" for line in lines))


def tree(root):
    """Return all that lies below a folder with its size and time."""
    paths = sorted(root.rglob("*"))
    return [(path, path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths]


def names_text():
    return "".join(f"{name}\n" for name in NAMES)


def stems(split):
    return [stem for stem, (its, _) in PHOTOS.items() if its == split]


def alexeyab(root):
    """darknet/data/obj.data; its paths are relative to darknet/, where the program is started."""
    data = root / "darknet/data"
    fill(lambda _, stem: (data / f"obj/{stem}.jpg", data / f"obj/{stem}.txt"))
    write(data / "obj/none.txt", "")
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        write(data / f"{name}.txt", "".join(f"data/obj/{stem}.jpg\n" for stem in stems(split)))
    write(data / "obj.names", names_text())
    return write(
        data / "obj.data",
        "classes = 3\ntrain  = data/train.txt\nvalid  = data/valid.txt\ntest=data/test.txt\nnames = data/obj.names\n"
        "backup = backup/\n",
    )


def lists(root):
    """A folder of lists beside the photos, without a .data file; paths as of another machine."""
    fill(lambda _, stem: (root / f"obj/{stem}.jpg", root / f"obj/{stem}.txt"))
    write(root / "classes.txt", names_text())
    for split in ("train", "val", "test"):
        write(root / f"{split}.txt", "".join(f"/content/darknet/mine/obj/{stem}.jpg\n" for stem in stems(split)))
    return root / "train.txt"


def roboflow(root):
    """Roboflow's export for YOLOv8: ../train/images means train/images, and names carry a hash."""
    folder = {"train": "train", "val": "valid", "test": "test"}

    def place(split, stem):
        name = f"{stem}_jpg.rf.0a1b2c3d"
        return root / folder[split] / f"images/{name}.jpg", root / folder[split] / f"labels/{name}.txt"

    fill(place)
    write(root / "README.roboflow.txt", "a page of text\n")
    write(
        root / "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 3\n"
        f"names: {NAMES}\n\nroboflow:\n  workspace: mine\n  version: 1\n",
    )
    return root


def ultralytics(root):
    """images/train2017 and labels/train2017, names as a mapping, val a list with ./, as of coco128.yaml."""

    def place(split, stem):
        return root / f"images/{split}2017/{stem}.jpg", root / f"labels/{split}2017/{stem}.txt"

    fill(place)
    write(root / "val2017.txt", "./images/val2017/three.jpg\n")
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(NAMES))
    return write(
        root / "faces.yaml",
        "# faces\npath: .\ntrain: images/train2017  # 3 photos\nval: val2017.txt\ntest: [images/test2017]\n"
        f"names:\n{names}"
        "download: |\n  import os; os.system('false')\n",
    )


def roboflow_darknet(root):
    """Roboflow's export for Darknet: a folder a split, labels beside the photos, names in _darknet.labels."""
    folder = {"train": "train", "val": "valid", "test": "test"}
    fill(lambda split, stem: (root / folder[split] / f"{stem}.jpg", root / folder[split] / f"{stem}.txt"))
    for name in folder.values():
        write(root / name / "_darknet.labels", names_text())
    return root


def split_below(root):
    """images/train and labels/train with classes.txt, no file that says so."""
    fill(lambda split, stem: (root / f"images/{split}/{stem}.jpg", root / f"labels/{split}/{stem}.txt"))
    write(root / "classes.txt", names_text())
    return root


LAYOUTS = [alexeyab, lists, roboflow, ultralytics, roboflow_darknet, split_below]
