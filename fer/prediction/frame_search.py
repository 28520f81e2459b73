"""Where the faces of consecutive frames are: some frames are searched whole, the others near the faces around them."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fer.prediction.detection import Detection, FaceDetector

#: A face between two searched frames is looked for within a box of theirs, this part of its side larger all round.
SEARCH_MARGIN = 0.5
#: ... and down to this part of the smallest of their sides.
MIN_SIDE_RATIO = 0.5

Corners = tuple[int, int, int, int]


def search_frames(
    detector: FaceDetector,
    frames: Sequence[np.ndarray],
    every: int,
    run: Callable[[Callable[[int], list[Detection]], Iterable[int]], Iterable[list[Detection]]] = map,
) -> list[list[Detection]]:
    """Return the faces of each of some consecutive frames uint8 (h, w, 3) RGB.

    Each ``every``-th frame and the last are searched whole; those between only where the two around them have faces,
    which is much less work. So a face is missed that is there for less than ``every`` frames, or that neither of the
    two shows. ``every=1`` searches all frames whole. ``run`` is a map, perhaps of a pool.
    """
    searched = sorted({*range(0, len(frames), every), len(frames) - 1}) if frames else []
    detections = dict(zip(searched, run(lambda index: detector(frames[index], quick=True), searched), strict=True))
    between = [index for index in range(len(frames)) if index not in detections]

    def near(index: int) -> list[Detection]:
        before = index - index % every
        after = min(before + every, len(frames) - 1)
        return find_near(detector, frames[index], [face.box for face in detections[before] + detections[after]])

    detections |= dict(zip(between, run(near, between), strict=True))
    return [detections[index] for index in range(len(frames))]


def find_near(detector: FaceDetector, frame: np.ndarray, boxes: Sequence[tuple[float, ...]]) -> list[Detection]:
    """Return the faces near ``boxes`` (x, y, width, height in pixels), from left to right."""
    faces = []
    for (x0, y0, x1, y1), min_size in _regions(boxes, *frame.shape[1::-1]):
        for face in detector(np.ascontiguousarray(frame[y0:y1, x0:x1]), min_size, quick=True):
            x, y, width, height = face.box
            faces.append(Detection((x + x0, y + y0, width, height), face.score, face.angle))
    return sorted(faces, key=lambda face: face.box)


def _regions(boxes: Sequence[tuple[float, ...]], width: int, height: int) -> list[tuple[Corners, float]]:
    """Return regions that do not overlap, so that no face is found twice, and the smallest face to look for in each."""
    regions: list[tuple[Corners, float]] = []
    for x, y, w, h in boxes:
        margin = SEARCH_MARGIN * max(w, h)
        left, top = max(0, int(x - margin)), max(0, int(y - margin))
        corners = left, top, min(width, int(x + w + margin)), min(height, int(y + h + margin))
        region = corners, MIN_SIDE_RATIO * min(w, h)
        # what it overlaps becomes one with it, which may overlap others in turn
        while touched := [other for other in regions if _overlap(other[0], region[0])]:
            regions = [other for other in regions if other not in touched]
            x0, y0, x1, y1 = zip(*(corners for corners, _ in [*touched, region]), strict=True)
            region = (min(x0), min(y0), max(x1), max(y1)), min(side for _, side in [*touched, region])
        regions.append(region)
    return [(corners, min_size) for corners, min_size in regions if corners[0] < corners[2] and corners[1] < corners[3]]


def _overlap(one: Corners, other: Corners) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
