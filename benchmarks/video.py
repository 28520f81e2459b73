"""Faces in a 720p video, named in every frame and drawn: predict.py against the package fer 25.10.3 (PyPI).

    python3 -m venv /tmp/ferenv && /tmp/ferenv/bin/pip install fer==25.10.3      (some 3 GB: TensorFlow and torch)
    python benchmarks/video.py CHECKPOINT --fer /tmp/ferenv/bin/python [--frames 250]

Draws a video of 1280x720 with three moving faces. The package has our import name, so it runs in an environment of its
own: `Video.analyze` with its Haar cascade and quantised network, annotated video, no single frames (with their files it
is as fast). Ours is the run of predict.py with `faces.min_size=50`, the package's own smallest face. Each program runs
in its own process, in turn; the clock starts when the networks are loaded. The time outside detection is that of runs
in which both programs are given the faces' boxes instead of searching. A drawn face counts as found where a box has its
centre within a quarter of the face's height of the face's, and between half and twice its height.

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
    from fer.data.synthetic.face import Face, draw_face

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


def ours(video: str, ckpt: str, out: str, known: str) -> float:
    """Do what predict.py does; only the run itself counts. ``known`` is a file of boxes, or empty for a search."""
    from fer.api import predict
    from fer.prediction import predictor
    from fer.prediction.detection import Detection

    if known:
        boxes = iter(json.loads(Path(known).read_text()))
        predictor.search_frames = lambda finder, frames, *_: [
            [Detection(tuple(box), 1.0) for box in next(boxes)] for _ in frames
        ]
    keys = {"source": video, "ckpt": ckpt, "out": out, "min_confidence": None, "draw": True, "anonymize": False}
    keys |= {"show": False, "explain": False, "layer": None, "every_n": 1, "search_every": 5}
    keys |= {"smooth": 0.7, "batch": 16, "device": "cpu", "margin": None, "tta": False, "strict": False}
    keys |= {"classes": None, "embed": False}
    # `predict` says on its last line how fast it was, from the loaded network on
    with redirect_stdout(said := io.StringIO()):
        predict(keys, {"name": "haar", "model": None, "min_size": MIN_SIZE})
    rows = [json.loads(line) for line in Path(out, "predictions.jsonl").read_text().splitlines()]
    frames = cv2.VideoCapture(video).get(cv2.CAP_PROP_FRAME_COUNT)
    found = [[row[key] for key in ("frame", "x", "y", "width", "height")] for row in rows]
    Path(out, "found.json").write_text(json.dumps(found))
    return frames / float(said.getvalue().split(" frames/s")[0].split()[-1].replace(",", ""))


#: Runs in the package's environment: prints seconds and the boxes.
THEIRS = f"""
import json, os, sys, time
os.environ["CUDA_VISIBLE_DEVICES"] = ""
from fer.classes import Video
from fer.fer import FER
finder = FER(min_face_size={MIN_SIZE})
if sys.argv[3]:
    known = iter(json.load(open(sys.argv[3])))
    finder.find_faces = lambda *arguments, **options: [[int(length) for length in box] for box in next(known)]
start = time.perf_counter()
rows = Video(sys.argv[1], outdir=sys.argv[2]).analyze(finder, save_frames=False, zip_images=False)
seconds = time.perf_counter() - start
boxes = [[at, *map(float, row[key])] for at, row in enumerate(rows) for key in row if key.startswith("box")]
print(json.dumps([seconds, boxes]))
"""


def theirs(python: str, video: Path, folder: Path, known: str) -> tuple[float, list[list[float]]]:
    command = [python, "-c", THEIRS, str(video), str(folder / "theirs"), known]
    # not from here, where `import fer` would find ours
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        sys.exit(f"the package fer failed:\n{done.stderr[-2000:]}")
    seconds, boxes = json.loads(done.stdout.splitlines()[-1])
    return seconds, boxes


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
        known = folder / "boxes.json"
        known.write_text(json.dumps([[[x - h / 2, y - h / 2, h, h] for x, y, h in faces] for faces in truth]))
        print(f"{os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f} before")
        for what, given in (("searching", ""), ("boxes given", str(known))):
            taken: dict[str, list[float]] = {"ours": [], "fer 25.10.3": []}
            boxes = {}
            for _ in range(measure.TURNS):
                taken["ours"].append(measure.run(__file__, "ours", video, ckpt, out, given)["seconds"])
                boxes["ours"] = json.loads((out / "found.json").read_text())
                seconds, boxes["fer 25.10.3"] = theirs(arguments.fer, video, folder, given)
                taken["fer 25.10.3"].append(seconds)
            for label, runs in taken.items():
                found, false = count_found(truth, boxes[label])
                print(
                    f"{what}: {label:12} {arguments.frames / min(runs):5.1f} frames/s (best of {measure.TURNS}), "
                    f"{1000 * min(runs) / arguments.frames:5.2f} ms a frame, "
                    f"{found:,} of {3 * arguments.frames:,} faces, {false:,} false"
                )
            print(f"{what}: ratio {min(taken['fer 25.10.3']) / min(taken['ours']):.2f} (target: at least 3)")
        print(f"load average {os.getloadavg()[0]:.1f} after")
        peaks = []
        for frames in (1_000, 10_000):
            draw_video(folder / "small.mp4", frames, (160, 120), 1, 24)
            peaks.append(measure.run(__file__, "ours", folder / "small.mp4", ckpt, out, "")["gib"] * 1024)
        print(f"peak memory {peaks[0]:.0f} MiB for 1,000 frames, {peaks[1]:.0f} MiB for 10,000 (target: flat)")


if __name__ == "__main__":
    measure.serve({"ours": ours})
    main()
