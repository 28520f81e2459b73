"""FER2013's csv to HDF5: prepare.py's work against reading the pixel strings row by row into Python lists.

    python benchmarks/csv_to_hdf5.py [fer2013.csv[.xz]]

Without an argument a csv of FER2013's shape (35,887 rows, 48x48, about 300 MB) is drawn into a temporary folder. Both
programs read the plain csv, each in its own process, in turn; the clock starts after the imports. Ours is the whole of
``prepare``: staging on disk, hashes, duplicates, the file flushed to disk. The two files must hold the same labels and
pixels. Target: at least 10 times faster than the lists, peak memory under 0.6 GiB above the imports.
"""

import argparse
import csv
import json
import lzma
import shutil
import tempfile
from pathlib import Path

import cv2
import h5py
import measure
import numpy as np

from fer.data.preparation.prepare import prepare
from fer.data.readers.fer2013 import USAGES

ROWS = {"Training": 28709, "PublicTest": 3589, "PrivateTest": 3589}


def lists(csv_path: str, out: str) -> None:
    """Do what the earlier programs do: csv.reader, lists of Python integers, np.shape of the lists, six datasets."""
    pixels = {usage: [] for usage in ROWS}
    labels = {usage: [] for usage in ROWS}
    with open(csv_path, newline="") as file:
        for row in csv.reader(file):
            if row[-1] in pixels:
                pixels[row[-1]].append([int(value) for value in row[1].split()])
                labels[row[-1]].append(int(row[0]))
    with h5py.File(out, "w") as file:
        for usage in ROWS:
            np.shape(pixels[usage])  # they print it
            file.create_dataset(f"{usage}_pixel", data=np.asarray(pixels[usage], np.uint8).reshape(-1, 48 * 48))
            file.create_dataset(f"{usage}_label", data=np.asarray(labels[usage], np.int64))


def ours(data: str, out: str) -> None:
    """Do what prepare.py does with the data config, given as JSON."""
    prepare(json.loads(data), Path(out))


def draw_csv(path: Path, seed: int = 0) -> None:
    """Write a csv of FER2013's shape: smooth random pictures with some noise, grey levels spread like a photo's."""
    rng = np.random.default_rng(seed)
    digits = np.array([list(f"{value} ".encode().ljust(4, b"\0")) for value in range(256)], np.uint8)
    with open(path, "wb") as file:
        file.write(b"emotion,pixels,Usage\n")
        for usage, count in ROWS.items():
            for _ in range(count):
                coarse = rng.normal(129, 65, (6, 6)).astype(np.float32)
                picture = cv2.resize(coarse, (48, 48), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 4, (48, 48))
                text = digits[np.clip(picture, 0, 255).astype(np.uint8).ravel()].ravel()
                file.write(b"%d,%b,%b\n" % (rng.integers(7), text[text != 0].tobytes()[:-1], usage.encode()))


def same(reference_path: Path, ours_path: Path) -> bool:
    """Return whether both files hold the same labels and pixels in the same order."""
    with h5py.File(reference_path) as theirs, h5py.File(ours_path) as mine:
        for split, usage in USAGES.items():
            pixels = theirs[f"{usage}_pixel"]
            if split not in mine and not len(pixels):
                continue
            image = mine[f"{split}/image"]
            if len(pixels) != len(image) or (theirs[f"{usage}_label"][:] != mine[f"{split}/label"][:]).any():
                return False
            for start in range(0, len(pixels), 4096):
                rows = slice(start, start + 4096)
                if (pixels[rows] != image[rows].reshape(-1, pixels.shape[1])).any():
                    return False
    return True


def main() -> None:
    """Compare both programs on a csv that is drawn, or on the one that is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", nargs="?", type=Path, help="a real fer2013.csv, plain or .xz")
    with tempfile.TemporaryDirectory() as folder:
        plain = given = parser.parse_args().csv
        if given is None:
            plain = Path(folder, "fer2013.csv")
            draw_csv(plain)
        elif given.suffix == ".xz":
            plain = Path(folder, given.stem)
            with lzma.open(given) as packed, open(plain, "wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
        print(f"{given or 'drawn csv'}: {plain.stat().st_size / 1e6:.0f} MB")
        config = json.dumps(measure.data_config("fer2013", plain))
        outs = {program: Path(folder, f"{program}.h5") for program in ("lists", "ours")}
        best = measure.take_turns(__file__, {"lists": (plain, outs["lists"]), "ours": (config, outs["ours"])})
        if not same(outs["lists"], outs["ours"]):
            raise SystemExit("the two files differ")
    print(f"same labels and pixels; peak memory of ours {best['ours']['gib']:.2f} GiB, limit 0.6 GiB")
    print(f"ratio {best['lists']['seconds'] / best['ours']['seconds']:.1f} (target: at least 10)")


if __name__ == "__main__":
    measure.serve({"lists": lists, "ours": ours})
    main()
