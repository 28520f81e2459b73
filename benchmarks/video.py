"""Faces in a 720p video, named in every frame and drawn: predict.py against the package fer 25.10.3 (PyPI).

    python3 -m venv /tmp/ferenv && /tmp/ferenv/bin/pip install fer==25.10.3      (some 3 GB: TensorFlow and torch)
    python benchmarks/video.py CHECKPOINT --fer /tmp/ferenv/bin/python [--frames 250]

Draws a video of 1280x720 with three moving faces. The package has our import name, so it runs in an environment of its
own: `Video.analyze` with its Haar cascade and quantised network, annotated video, no single frames (with their files it
is as fast). Ours is the run of predict.py with `faces.min_size=50`, the package's own smallest face. Each program runs
in its own process, in turn; the clock starts when the networks are loaded. The time outside detection is the rest of
it: for the package, which does one thing after the other, without the seconds in its detector; for ours, which searches
in as many threads as there are cores, without their processor time divided by the cores. A drawn face counts as found
where a box has its centre within a quarter of the face's height of the face's, and between half and twice its height.

Then a small video of 10,000 frames and its first tenth: the peak memory must be the same within noise.

Targets, on 2 cores: at least 3 times the frames/s with no fewer faces found, at most a third of the time outside
detection, flat memory.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import cv2
import measure
import numpy as np

MIN_SIZE = 50


def draw_video(path: Path, frames: int, size: tuple[int, int], faces: int, unit: int) -> list[list[list[float]]]:
    """Write a video of faces that move on their own paths; return centre x, y and height of each face, frame by frame.

    A face is about 2.25 units wide and 2.5 high.
    """
    from fer.data.drawn_face import Face, draw_face

    width, height = size
    rng = np.random.default_rng(0)
    # something to search in: a flat ground would be rejected at the cascades' first stage
    ground = cv2.resize(rng.integers(20, 236, (18, 32, 3)).astype(np.uint8), size, interpolation=cv2.INTER_CUBIC)
    for _ in range(60):
        x, y, w, h = (rng.uniform(0, 1, 4) * (width, height, width / 5, height / 5)).astype(int).tolist()
        color = rng.uniform(0, 255, 3).tolist()
        cv2.ellipse(ground, (x, y), (w, h), 0, 0, 360, color, -1, cv2.LINE_AA)
        cv2.rectangle(ground, (y, x), (y + h, x + w), color[::-1], 2)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, size)
    truth = []
    for at in range(frames):
        frame = ground.copy()
        truth.append([])
        for number in range(faces):
            # a face goes to and fro in a lane of its own
            x = (number + 0.5 + 0.12 * np.sin(at / 15 + number)) * width / faces
            y = (0.5 + 0.12 * np.cos(at / 20 + number)) * height
            units = {12: (1.0, 1.0), 6: (0.8, 0.8)} if number % 2 else {1: (1.0, 1.0), 4: (1.0, 1.0), 15: (1.0, 1.0)}
            draw_face(frame, Face((x, y), unit, (0.0, 0.0, 0.0), units), np.random.default_rng(number))
            truth[-1].append([x, y, 2.5 * unit])
        writer.write(frame)
    writer.release()
    return truth


def ours(video: str, ckpt: str, out: str) -> float:
    """Do what predict.py does; only the run itself counts."""
    from fer import prediction, predictor

    open_finder, spent = predictor.open_finder, []

    def timed(*options):
        find = open_finder(*options)

        def search(*given) -> list:
            start = time.thread_time()
            found = find(*given)
            spent.append(time.thread_time() - start)
            return found

        return search

    predictor.open_finder = timed
    keys = {"source": video, "ckpt": ckpt, "out": out, "min_confidence": None, "draw": True, "anonymize": False}
    keys |= {"show": False, "explain": False, "layer": None, "every_n": 1, "search_every": 5}
    keys |= {"smooth": 0.7, "batch": 16, "device": "cpu"}
    # `predict` says on its last line how fast it was, from the loaded network on
    with redirect_stdout(said := io.StringIO()):
        prediction.predict(keys, {"name": "haar", "model": None, "min_size": MIN_SIZE})
    rows = [json.loads(line) for line in Path(out, "predictions.jsonl").read_text().splitlines()]
    frames = cv2.VideoCapture(video).get(cv2.CAP_PROP_FRAME_COUNT)
    found = [[row[key] for key in ("frame", "x", "y", "width", "height")] for row in rows]
    Path(out, "found.json").write_text(json.dumps([sum(spent) / os.cpu_count(), found]))
    return frames / float(said.getvalue().split(" frames/s")[0].split()[-1].replace(",", ""))


#: Runs in the package's environment: prints seconds, seconds of them in the detector, and the boxes.
THEIRS = f"""
import json, os, sys, time
os.environ["CUDA_VISIBLE_DEVICES"] = ""
from fer.classes import Video
from fer.fer import FER
finder = FER(min_face_size={MIN_SIZE})
find, spent = finder.find_faces, 0.0
def timed(*arguments, **options):
    global spent
    start = time.perf_counter()
    found = find(*arguments, **options)
    spent += time.perf_counter() - start
    return found
finder.find_faces = timed
start = time.perf_counter()
rows = Video(sys.argv[1], outdir=sys.argv[2]).analyze(finder, save_frames=False, zip_images=False)
seconds = time.perf_counter() - start
boxes = [[at, *map(float, row[key])] for at, row in enumerate(rows) for key in row if key.startswith("box")]
print(json.dumps([seconds, spent, len(rows), boxes]))
"""


def theirs(python: str, video: Path, folder: Path) -> tuple[float, float, list[list[float]]]:
    command = [python, "-c", THEIRS, str(video), str(folder / "theirs")]
    # not from here, where `import fer` would find ours
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        sys.exit(f"the package fer failed:\n{done.stderr[-2000:]}")
    seconds, spent, _, boxes = json.loads(done.stdout.splitlines()[-1])
    return seconds, spent, boxes


def count_found(truth: list[list[list[float]]], boxes: list[list[float]]) -> tuple[int, int]:
    """Return how many of the drawn faces have a box, and how many boxes are of no face or of one that has another."""
    left = [list(faces) for faces in truth]
    found = 0
    for at, x, y, width, height in boxes:
        for face in left[int(at)]:
            apart = np.hypot(x + width / 2 - face[0], y + height / 2 - face[1])
            if apart < face[2] / 4 and 0.5 < height / face[2] < 2:
                left[int(at)].remove(face)
                found += 1
                break
    return found, len(boxes) - found


def main() -> None:
    """Draw the videos, run the programs in turn and print rates, faces found, memory and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt")
    parser.add_argument("--fer", required=True, help="the python of the environment that holds fer 25.10.3")
    parser.add_argument("--frames", type=int, default=250)
    arguments = parser.parse_args()
    ckpt = str(Path(arguments.ckpt).resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video, out = folder / "v.mp4", folder / "ours"
        truth = draw_video(video, arguments.frames, (1280, 720), 3, 70)
        taken: dict[str, list[tuple[float, float, list[list[float]]]]] = {"ours": [], "fer 25.10.3": []}
        print(f"{os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f} before")
        for _ in range(measure.TURNS):
            seconds = measure.run(__file__, "ours", video, ckpt, out)["seconds"]
            taken["ours"].append((seconds, *json.loads((out / "found.json").read_text())))
            taken["fer 25.10.3"].append(theirs(arguments.fer, video, folder))
        best, outside = {}, {}
        for label, runs in taken.items():
            best[label] = min(seconds for seconds, _, _ in runs)
            outside[label] = min(seconds - spent for seconds, spent, _ in runs)
            found, false = count_found(truth, runs[-1][2])
            print(
                f"{label:12} {arguments.frames / best[label]:5.1f} frames/s (best of {measure.TURNS}), "
                f"{1000 * outside[label] / arguments.frames:5.2f} ms a frame outside detection, "
                f"{found:,} of {3 * arguments.frames:,} faces found, {false:,} false"
            )
        print(f"load average {os.getloadavg()[0]:.1f} after")
        for what, times in (("frames/s", best), ("time outside detection", outside)):
            print(f"{what}: ratio {times['fer 25.10.3'] / times['ours']:.2f} (target: at least 3)")
        peaks = []
        for frames in (1_000, 10_000):
            draw_video(folder / "small.mp4", frames, (160, 120), 1, 24)
            peaks.append(measure.run(__file__, "ours", folder / "small.mp4", ckpt, out)["gib"] * 1024)
        print(f"peak memory {peaks[0]:.0f} MiB for 1,000 frames, {peaks[1]:.0f} MiB for 10,000 (target: flat)")


if __name__ == "__main__":
    measure.serve({"ours": ours})
    main()
