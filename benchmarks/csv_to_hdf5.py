"""FER2013's csv to HDF5: ours against reading the pixel strings row by row into Python lists.

    python benchmarks/csv_to_hdf5.py [fer2013.csv[.xz]]

Without an argument a csv of FER2013's shape (35,887 rows, 48x48, about 300 MB) is drawn into a temporary folder. Each
program runs in its own process on the plain csv. Seconds and peak memory are its own, above its imports; the whole
process, start-up and imports included, is printed beside them. The two files must hold the same labels and pixels.
"""

import argparse
import csv
import json
import lzma
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import h5py
import numpy as np

from fer.data.fer2013 import USAGES, pixel_csv_source
from fer.data.source import SPLITS, FaceFormat

ROWS = {"Training": 28709, "PublicTest": 3589, "PrivateTest": 3589}


def reference(csv_path: Path, out: Path) -> None:
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


def ours(csv_path: Path, out: Path) -> None:
    """Read with our reader on two threads and append to resizable datasets; a bounded number of blocks is in flight."""
    face = FaceFormat()
    source = pixel_csv_source(csv_path, face)
    with h5py.File(out, "w") as file, ThreadPoolExecutor(2) as pool:
        growing = {"maxshape": (None, *face.shape), "chunks": (64, *face.shape)}
        images = [file.create_dataset(f"{split}/image", (0, *face.shape), "u1", **growing) for split in SPLITS]
        labels = [file.create_dataset(f"{split}/label", (0,), "i8", maxshape=(None,)) for split in SPLITS]

        def append(faces) -> None:
            for split in np.unique(faces.split):
                rows = faces.split == split
                start = len(labels[split])
                for dataset, values in ((images[split], faces.image[rows]), (labels[split], faces.label[rows])):
                    dataset.resize(start + len(values), axis=0)
                    dataset[start:] = values

        running = deque()
        for block in source.blocks():
            running.append(pool.submit(source.decode, block))
            if len(running) > 4:
                append(running.popleft().result())
        while running:
            append(running.popleft().result())


PROGRAMS = {"reference": reference, "ours": ours}


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


def child(program: str, csv_path: Path, out: Path) -> None:
    """Run one program and print its seconds and its peak memory above what the imports took."""
    before = memory("VmRSS")
    start = time.perf_counter()
    PROGRAMS[program](csv_path, out)
    seconds = time.perf_counter() - start
    # Not ru_maxrss: Linux starts it at the size of the process that this one was started from.
    print(json.dumps({"seconds": seconds, "gib": (memory("VmHWM") - before) / 2**20}))


def memory(field: str) -> int:
    """Return the resident memory of this process now (VmRSS) or at its peak (VmHWM), in KiB; Linux only."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def run(program: str, csv_path: Path, out: Path) -> dict[str, float]:
    """Return seconds, GiB and the seconds of the whole process of one program in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--child", program, str(csv_path), str(out)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(printed.splitlines()[-1]) | {"process": time.perf_counter() - start}


def same(reference_path: Path, ours_path: Path) -> bool:
    """Return whether both files hold the same labels and pixels in the same order."""
    with h5py.File(reference_path) as theirs, h5py.File(ours_path) as mine:
        for split, usage in USAGES.items():
            pixels, image = theirs[f"{usage}_pixel"], mine[f"{split}/image"]
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
        outs = {program: Path(folder, f"{program}.h5") for program in PROGRAMS}
        taken = {program: run(program, plain, out) for program, out in outs.items()}
        for program, result in taken.items():
            print(
                f"{program:10} {result['seconds']:6.2f} s  {result['gib']:5.2f} GiB above imports"
                f"  ({result['process']:.2f} s with start-up)"
            )
        if not same(outs["reference"], outs["ours"]):
            raise SystemExit("the two files differ")
        print(f"same labels and pixels; ours is {taken['reference']['seconds'] / taken['ours']['seconds']:.1f}x faster")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
