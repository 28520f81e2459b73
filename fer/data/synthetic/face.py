"""Schematic faces, drawn from landmarks that action units have moved; nobody's face is in them.

Face coordinates and landmark order are those of ``fer/data/synthetic/action_units.py``. Colours are BGR, 0..255.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from fer.data.synthetic.action_units import NEUTRAL, NOSE_LIFT, SHIFTS, SIDE


@dataclass(slots=True)
class Face:
    """Where a face is and what it does: centre and unit in pixels, yaw, pitch and roll in radians, action units.

    ``units`` maps an action unit to its strength on the left and on the right, 0 absent .. 1 full.
    """

    centre: tuple[float, float]
    unit: float
    angles: tuple[float, float, float]
    units: dict[int, tuple[float, float]]

    def project(self, points: np.ndarray, lift: np.ndarray | float = 0.0) -> np.ndarray:
        """Turn face coordinates (n, 2) on an ellipsoid, ``lift`` units above it, into pixels (parallel projection)."""
        yaw, pitch, roll = self.angles
        x, y = points[:, 0], points[:, 1] - 0.2
        z = lift + 0.75 * np.sqrt(np.clip(1 - (x / 1.08) ** 2 - (y / 1.6) ** 2, 0, None))
        x, y = x * np.cos(yaw) + z * np.sin(yaw), y * np.cos(pitch) + z * np.sin(pitch)
        turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
        return self.centre + self.unit * np.stack([x, y], 1) @ turn

    def at(self, *points: tuple[float, float], lift: float = 0.0) -> np.ndarray:
        return self.project(np.array(points), lift)

    def along(self, x: float, y: float) -> np.ndarray:
        """Return the step in pixels that leads by (x, y) across the middle of the face."""
        ends = self.at((0, 0), (x, y))
        return ends[1] - ends[0]

    def strength(self, unit: int) -> float:
        return max(self.units.get(unit, (0.0,)))

    def landmarks(self, rng: np.random.Generator) -> np.ndarray:
        """Return the landmarks (68, 2) in pixels of somebody with this pose and expression."""
        shape = NEUTRAL * (rng.uniform(0.92, 1.04), rng.uniform(0.95, 1.06)) + rng.normal(0, 0.012, (68, 2))
        eyes, lips = rng.uniform(0.9, 1.25), rng.uniform(0.85, 1.2)
        for part, size in ((slice(36, 42), (eyes, eyes)), (slice(42, 48), (eyes, eyes)), (slice(48, 68), (1.0, lips))):
            middle = shape[part].mean(0)
            shape[part] = middle + (shape[part] - middle) * size
        for unit, (left, right) in self.units.items():
            shape += SHIFTS[unit] * np.select([SIDE < 0, SIDE > 0], [left, right], 0.5 * (left + right))[:, None]
        # Lids and lips may touch but not cross.
        for upper, lower in ((61, 67), (62, 66), (63, 65), (37, 41), (38, 40), (43, 47), (44, 46)):
            shape[lower, 1] = max(shape[lower, 1], shape[upper, 1] + 0.012)
        shape[49:54, 1] = np.minimum(shape[49:54, 1], shape[60:65, 1] - 0.03)
        shape[55:60, 1] = np.maximum(shape[55:60, 1], shape[[64, 65, 66, 67, 60], 1] + 0.03)
        return self.project(shape, NOSE_LIFT)


@dataclass(slots=True)
class _Person:
    """What is the same in all faces of somebody: colours are BGR, 0..255; ``top`` is the height of the skull."""

    skin: np.ndarray
    hair: np.ndarray
    long_hair: bool
    bald: bool
    top: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "_Person":
        tone = rng.uniform(0, 1)
        skin = np.array([195, 215, 245]) * (1 - tone) + np.array([45, 65, 105]) * tone + rng.normal(0, 8, 3)
        hair = np.array([[25, 25, 30], [30, 45, 70], [40, 70, 110], [110, 170, 205], [150, 150, 155]])[rng.integers(5)]
        long_hair = bool(rng.random() < 0.45)
        bald = not long_hair and bool(rng.random() < 0.12)
        return cls(skin, hair * rng.uniform(0.6, 1.2), long_hair, bald, rng.uniform(-1.25, -1.05))


_T = np.linspace(0, 1, 5, endpoint=False)[:, None]
_CATMULL_ROM = 0.5 * np.hstack(
    [-(_T**3) + 2 * _T**2 - _T, 3 * _T**3 - 5 * _T**2 + 2, -3 * _T**3 + 4 * _T**2 + _T, _T**3 - _T**2]
)


def _curve(points: np.ndarray, closed: bool = False) -> np.ndarray:
    """A smooth curve through points (n, 2): a Catmull-Rom spline."""
    p = np.concatenate([points[-1:], points, points[:2]] if closed else [points[:1], points, points[-1:]])
    segments = np.stack([p[:-3], p[1:-2], p[2:-1], p[3:]], 1)
    curve = (_CATMULL_ROM @ segments).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def _fill(image: np.ndarray, points: np.ndarray, color: np.ndarray) -> None:
    cv2.fillPoly(image, [np.round(points * 16).astype(np.int32)], color.tolist(), cv2.LINE_AA, 4)


def _stroke(image: np.ndarray, points: np.ndarray, width: float, color: np.ndarray) -> None:
    """Draw a line that is ``width`` pixels wide in the middle and thin at both ends."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    along = padded[2:] - padded[:-2]
    half = 0.5 * width * np.sqrt(np.sin(np.linspace(0.15, np.pi - 0.15, len(points))))
    normal = along[:, ::-1] * (-1, 1) * (half / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6))[:, None]
    _fill(image, np.concatenate([points + normal, (points - normal)[::-1]]), color)


def _around(image: np.ndarray, outline: np.ndarray) -> tuple[slice, slice, np.ndarray]:
    """Return the rows and columns of an image that an outline touches, and how far each pixel is inside it (0..1)."""
    x0, y0 = np.maximum(outline.min(0).astype(int) - 1, 0)
    x1, y1 = np.maximum(np.minimum(outline.max(0).astype(int) + 3, image.shape[1::-1]), (x0, y0))
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    if mask.size:
        _fill(mask, outline - (x0, y0), np.array([255]))
    return slice(y0, y1), slice(x0, x1), mask[:, :, None] * np.float32(1 / 255)


def _keep_inside(image: np.ndarray, before: np.ndarray, outline: np.ndarray) -> None:
    """Undo whatever was drawn on ``image`` since ``before`` was copied from it, except inside the outline."""
    rows, columns, inside = _around(image, outline)
    drawn, old = image[rows, columns].astype(np.float32), before[rows, columns]
    image[:] = before
    image[rows, columns] = old + (drawn - old) * inside + np.float32(0.5)


_ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)


def draw_face(photo: np.ndarray, face: Face, rng: np.random.Generator) -> np.ndarray:
    """Draw one face and its shoulders on a photo (height, width, 3) uint8 in place.

    Returns its landmarks (68, 2) in pixels of the photo.
    """
    person = _Person.draw(rng)
    _draw_behind(photo, face, person, rng)
    corner = np.maximum(np.array(face.centre) - 2 * face.unit, 0).astype(int)
    end = (np.array(face.centre) + 2 * face.unit).astype(int)
    image = photo[corner[1] : end[1], corner[0] : end[0]]
    here = Face(tuple(face.centre - corner), face.unit, face.angles, face.units)
    marks = here.landmarks(rng)
    top = person.top
    right = ((0.99, -0.3), (0.9, -0.65), (0.55, top + 0.05))
    scalp = here.at(*right, (0, top - 0.05), *((-x, y) for x, y in reversed(right)))
    outline = _curve(np.concatenate([marks[:17], scalp]), closed=True)
    _fill(image, outline, person.skin)
    before = image.copy()
    if not person.long_hair and rng.random() < 0.15:
        _draw_beard(image, here, marks, person)
    _draw_wrinkles(image, here, marks, person.skin)
    _draw_nose(image, here, marks, person.skin)
    _draw_eyes(image, here, marks, person, rng)
    _draw_mouth(image, here, marks, person.skin * (0.62, 0.58, 0.86) * rng.uniform(0.85, 1.0))
    if not person.bald:
        left, right = rng.uniform(-0.98, -0.76, 2)
        fringe = _curve(here.at((-0.85, -0.62), (-0.3, left), (0.4, right), (0.85, -0.62)))
        around = here.at((0.95, -0.5), (1.2, -0.2), (1.2, -1.6), (-1.2, -1.6), (-1.2, -0.2), (-0.95, -0.5))
        _fill(image, np.concatenate([fringe, around]), person.hair)
    _keep_inside(image, before, outline)
    if rng.random() < 0.12:
        _draw_glasses(image, here, marks, rng.uniform(10, 90, 3))
    _light(image, here, outline, rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.45))
    return marks + corner


def _draw_behind(image: np.ndarray, face: Face, person: _Person, rng: np.random.Generator) -> None:
    """Hair, neck, shoulders and ears; the shoulders turn less than the head."""
    yaw, _, roll = face.angles
    body, clothes = Face(face.centre, face.unit, (0.3 * yaw, 0, 0.3 * roll), {}), rng.uniform(20, 230, 3)
    if not person.bald:
        top, end = person.top, rng.uniform(0.6, 1.9) if person.long_hair else 0.1
        crown = ((-1.1, -0.1), (-1.02, -0.65), (-0.6, top - 0.05), (0, top - 0.18), (0.6, top - 0.05), (1.02, -0.65))
        ends = ((1.1, -0.1), (1.15, end), (0.6, end + 0.1), (-0.6, end + 0.1), (-1.15, end))
        _fill(image, _curve(face.at(*crown, *ends), closed=True), person.hair)
    neck = np.concatenate([face.at((-0.5, 0.9), (0.5, 0.9), lift=-0.3), body.at((0.6, 2.1), (-0.6, 2.1))])
    _fill(image, neck, person.skin * 0.75)
    _fill(image, body.at((-0.7, 1.85), (0.7, 1.85), (1.9, 2.3), (2.1, 12), (-2.1, 12), (-1.9, 2.3)), clothes)
    if not person.long_hair:
        for side in (-1, 1):
            ear = face.at((side, -0.1), (side * 1.12, -0.12), (side * 1.12, 0.2), (side, 0.4))
            _fill(image, _curve(ear, closed=True), person.skin * 0.85)


def _draw_beard(image: np.ndarray, face: Face, marks: np.ndarray, person: _Person) -> None:
    upper = face.at((0.6, 0.75), (0.3, 0.72), (-0.3, 0.72), (-0.6, 0.75))
    _fill(image, np.concatenate([marks[1:16], upper]), person.skin * 0.6 + person.hair * 0.25)
    middle = marks[48:60].mean(0)
    _fill(image, middle + (marks[48:60] - middle) * 1.25, person.skin * 0.9)


def _draw_wrinkles(image: np.ndarray, face: Face, marks: np.ndarray, skin: np.ndarray) -> None:
    """The lines and bulges that come with brow raising (1, 2), frowning (4), cheeks (6), nose (9) and smile (12)."""
    u, frown = face.unit, face.strength(4)
    raised = max(face.strength(1), face.strength(2))
    if raised > 0.3:
        for y in (-0.62, -0.74):
            line = _curve(face.at((-0.5, y), (-0.2, y - 0.03), (0.2, y - 0.03), (0.5, y)))
            _stroke(image, line, 0.05 * u, skin * (1 - 0.3 * raised))
    if frown > 0.3:
        for x in (-0.08, 0.08):
            _stroke(image, face.at((x, -0.5), (x * 0.9, -0.36), (x * 0.9, -0.2)), 0.06 * u, skin * (1 - 0.45 * frown))
    if face.strength(9) > 0.3:
        for y in (-0.08, 0.04, 0.16):
            line = _curve(face.at((-0.17, y + 0.03), (0, y - 0.03), (0.17, y + 0.03), lift=0.1))
            _stroke(image, line, 0.055 * u, skin * 0.55)
    fold = 0.4 * max(face.strength(12), face.strength(9))
    for side, wing, corner in ((-1, 31, 48), (1, 35, 54)):
        if fold > 0.15:
            start, end = marks[wing] + face.along(side * 0.06, -0.06), marks[corner] + face.along(side * 0.16, 0)
            bend = (start + marks[corner]) / 2 + face.along(side * 0.13, 0)
            _stroke(image, _curve(np.stack([start, bend, end])), 0.06 * u, skin * (1 - fold))
        if face.strength(6) > 0.3:
            cheek = _curve(face.at((side * 0.75, 0.22), (side * 0.5, 0.27), (side * 0.27, 0.2)))
            _stroke(image, cheek, 0.05 * u, skin * 0.72)
            for y in (-0.08, 0.05):
                _stroke(image, face.at((side * 0.72, y * 0.6), (side * 0.86, y * 1.7)), 0.04 * u, skin * 0.7)


def _draw_nose(image: np.ndarray, face: Face, marks: np.ndarray, skin: np.ndarray) -> None:
    side, wing = (1, 35) if face.angles[0] < 0 else (-1, 31)
    bridge = np.concatenate([marks[27:30] + face.along(side * 0.1, 0), marks[wing : wing + 1]])
    _stroke(image, _curve(bridge), 0.06 * face.unit, skin * 0.8)
    _stroke(image, _curve(marks[31:36]), 0.07 * face.unit, skin * 0.62)


def _draw_eyes(image: np.ndarray, face: Face, marks: np.ndarray, person: _Person, rng: np.random.Generator) -> None:
    u = face.unit
    iris = np.array([[30, 40, 60], [60, 90, 110], [150, 120, 70], [40, 60, 90]])[rng.integers(4)]
    gaze = rng.normal(0, 0.04, 2) - (0, 0.02)
    for first in (36, 42):
        lids = _curve(marks[first : first + 6], closed=True)
        before = image.copy()
        _fill(image, lids, np.full(3, min(235.0, 140 + 0.5 * person.skin.mean())))
        middle = (marks[first] + marks[first + 3]) / 2 + gaze * u
        for radius, color in ((0.125, iris), (0.06, np.full(3, 12))):
            _fill(image, middle + radius * u * _CIRCLE, color)
        _keep_inside(image, before, lids)
        _stroke(image, lids[:16], 0.055 * u, person.skin * 0.25)
        _stroke(image, np.concatenate([lids[15:], lids[:1]]), 0.03 * u, person.skin * 0.6)
    brow, width = np.minimum(person.hair * 0.7, person.skin * 0.38), rng.uniform(0.07, 0.14) * u
    for first in (17, 22):
        _stroke(image, _curve(marks[first : first + 5]), width, brow)


def _draw_mouth(image: np.ndarray, face: Face, marks: np.ndarray, lips: np.ndarray) -> None:
    _fill(image, _curve(marks[48:60], closed=True), lips)
    upper, lower, teeth = marks[60:65], marks[[64, 65, 66, 67, 60]], face.along(0, 0.1)
    opening = np.concatenate([_curve(upper), _curve(lower)])
    before = image.copy()
    _fill(image, opening, np.array([25, 20, 45]))
    if face.strength(26) < 0.6:
        _fill(image, np.concatenate([upper, upper[::-1] + teeth]), np.array([215, 225, 230]))
    if face.strength(16) > 0.3:
        _fill(image, np.concatenate([lower, lower[::-1] - 0.7 * teeth]), np.array([205, 215, 222]))
    _keep_inside(image, before, opening)
    _stroke(image, _curve(upper), 0.035 * face.unit, lips * 0.5)


def _draw_glasses(image: np.ndarray, face: Face, marks: np.ndarray, color: np.ndarray) -> None:
    for first in (36, 42):
        ring = marks[first : first + 6].mean(0) + 0.29 * face.unit * _CIRCLE * (1, 0.85)
        points, thickness = np.round(ring * 16).astype(np.int32), max(1, round(0.04 * face.unit))
        cv2.polylines(image, [points], True, color.tolist(), thickness, cv2.LINE_AA, 4)
    _stroke(image, marks[[39, 27, 42]], 0.05 * face.unit, color)


def _light(image: np.ndarray, face: Face, outline: np.ndarray, direction: float, amount: float) -> None:
    """Brighten the head towards one side and darken it towards the other, by ``amount`` for each face unit."""
    rows, columns, inside = _around(image, outline)
    y = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None, None] - face.centre[1]) / face.unit
    x = (np.arange(columns.start, columns.stop, dtype=np.float32)[:, None] - face.centre[0]) / face.unit
    gain = np.clip(1 + amount * (x * np.cos(direction) + y * np.sin(direction)), 0.4, 1.35)
    lit = image[rows, columns] * (1 + (gain - 1) * inside)
    image[rows, columns] = np.minimum(lit, 255)
