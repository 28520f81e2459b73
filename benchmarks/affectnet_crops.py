"""AffectNet photos to 48x48 grey faces: our reader on all cores against a plain serial read-crop-resize loop.

    python benchmarks/affectnet_crops.py [--photos 5000]

Draws JPEG photos of about 425x425 with a training.csv of AffectNet's columns (landmarks of 1 kB included) into a
temporary folder. Each program runs in its own process, three times in turn; the time is that of the whole process,
start-up, imports and csv included, and the median counts. Both must give the same faces, byte for byte. Peak memory is
above the imports, for all the photos and for a fifth of them.
"""

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

BOX_SHARE = 0.77  # of the photo's side, as in AffectNet


def serial(root: Path) -> Iterator[np.ndarray]:
    """Do what a plain script does: one photo after another, all faces in a list."""
    faces = []
    with open(root / "training.csv", newline="") as stream:
        for row in csv.DictReader(stream):
            x, y, width, height = (int(row[name]) for name in ("face_x", "face_y", "face_width", "face_height"))
            image = cv2.imread(str(root / "Manually_Annotated_Images" / row["subDirectory_filePath"]), 0)
            faces.append(cv2.resize(image[y : y + height, x : x + width], (48, 48), interpolation=cv2.INTER_AREA))
    yield from faces


def ours(root: Path) -> Iterator[np.ndarray]:
    """Decode the blocks of our reader on a thread a core; a bounded number of them is in flight."""
    from fer.data.affectnet import affectnet_source
    from fer.data.source import FaceFormat, PhotoLimits

    cv2.setNumThreads(1)  # the photos are the parallel work; threads inside a resize would only get in their way
    source = affectnet_source(root, FaceFormat(), PhotoLimits())
    running = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for block in source.blocks():
            running.append(pool.submit(source.decode, block))
            if len(running) > 2 * os.cpu_count():
                yield from running.popleft().result().image
        while running:
            yield from running.popleft().result().image


PROGRAMS = {"serial": serial, "ours": ours}


def draw_photos(root: Path, count: int, seed: int = 0) -> None:
    """Write photos of 405 to 445 pixels a side, smooth shapes with sensor-like noise, and their training.csv."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 6, (900, 900, 3)).astype(np.float32)
    lines = ["subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"]
    for index in range(count):
        side = int(rng.integers(405, 446))
        coarse = rng.normal(128, 60, (24, 24, 3)).astype(np.float32)
        dx, dy = rng.integers(0, 900 - side, 2)
        image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC) + noise[dy : dy + side, dx : dx + side]
        path = f"{index % 50}/{index}.jpg"
        file = root / "Manually_Annotated_Images" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
        size = round(side * BOX_SHARE)
        start = (side - size) // 2
        landmarks = ";".join(f"{value:.2f}" for value in rng.uniform(start, start + size, 136))
        lines.append(f"{path},{start},{start},{size},{size},{landmarks},{rng.integers(7)},0.1,-0.2")
    (root / "training.csv").write_text("\n".join(lines) + "\n")


def memory(field: str) -> int:
    """Return the resident memory of this process now (VmRSS) or at its peak (VmHWM), in KiB; Linux only."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def child(program: str, root: Path) -> None:
    """Run one program and print how many faces it gave, their checksum and its peak memory in MiB above imports."""
    if program == "ours":
        import fer.data.affectnet  # noqa: F401 (here, so that the imports do not count as memory of the reading)
    before = memory("VmRSS")
    count = checksum = 0
    for face in PROGRAMS[program](root):
        count += 1
        checksum = zlib.crc32(face, checksum)
    # Not ru_maxrss: Linux starts it at the size of the process that this one was started from.
    print(json.dumps({"faces": count, "checksum": checksum, "mib": (memory("VmHWM") - before) / 1024}))


def run(program: str, root: Path) -> dict[str, float]:
    """Return what ``child`` prints and the seconds of its whole process."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--child", program, str(root)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(printed) | {"seconds": time.perf_counter() - start}


def main() -> None:
    """Draw the photos, run both programs in turn and print rates, ratio and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=5000)
    count = parser.parse_args().photos
    with tempfile.TemporaryDirectory() as folder:
        root, fifth = Path(folder, "all"), Path(folder, "fifth")
        draw_photos(root, count)
        draw_photos(fifth, count // 5)
        results = {program: [] for program in PROGRAMS}
        for _ in range(3):
            for program in PROGRAMS:
                results[program].append(run(program, root))
        small = run("ours", fifth)
    faces = {(result["faces"], result["checksum"]) for runs in results.values() for result in runs}
    if len(faces) != 1 or results["ours"][0]["faces"] != count:
        sys.exit(f"the programs disagree: {faces}")
    seconds = {program: statistics.median(result["seconds"] for result in runs) for program, runs in results.items()}
    for program, runs in results.items():
        spread = ", ".join(f"{count / result['seconds']:,.0f}" for result in runs)
        print(f"{program:7} {count / seconds[program]:7,.0f} photos/s  (runs: {spread}; {os.cpu_count()} cores)")
    print(f"ratio   {seconds['serial'] / seconds['ours']:.2f}  (same {count:,} faces byte for byte)")
    peak = statistics.median(result["mib"] for result in results["ours"])
    print(f"memory  {peak:.0f} MiB above imports for {count:,} photos, {small['mib']:.0f} MiB for {count // 5:,}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
