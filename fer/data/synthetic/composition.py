"""A scene: faces set into a background with drawn heads and shoulders, and what looks like faces but is none."""

from dataclasses import dataclass

import cv2
import numpy as np

from fer.data.synthetic.backgrounds import draw_background, part_of

#: The longer side of a scene in pixels, and the smallest face's.
LONG, SMALLEST = 320, 20
# A face's side in the pictures in which faces and bodies are drawn, in pixels, and the sides of these in faces' sides.
_UNIT, _FACE_SIDES = 96, 2
_BODY_UNIT, _BODY_SIDES, _BODY_ABOVE = 48, 5, 2
#: Least share of a face's box that lies in the scene, and most of one that another's box covers.
_INSIDE, _COVERED = 0.75, 0.12
# Eyes of FER2013: eye distance 1 / 2.72 of the square's side, at .388 of its height.
_EYE_X, _EYE_Y = 0.184, 0.388


@dataclass(frozen=True, slots=True)
class Square:
    """Where a face goes: the middle and the side of its square, in pixels, and the degrees it is turned by."""

    x: float
    y: float
    side: float
    degrees: float = 0.0

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return x, y, width, height of the square, unturned, as far as it lies in a scene.

        So the box's side stays 2.7 times the distance of the eyes, as FER2013's, however the face is turned.
        """
        x0, x1 = (min(max(self.x + half, 0.0), width) for half in (-self.side / 2, self.side / 2))
        y0, y1 = (min(max(self.y + half, 0.0), height) for half in (-self.side / 2, self.side / 2))
        return x0, y0, x1 - x0, y1 - y0

    def meets(self, other: "Square") -> float:
        """Return the share of the smaller square that both cover."""
        across = min(self.x + self.side / 2, other.x + other.side / 2) - max(
            self.x - self.side / 2, other.x - other.side / 2
        )
        down = min(self.y + self.side / 2, other.y + other.side / 2) - max(
            self.y - self.side / 2, other.y - other.side / 2
        )
        return max(0.0, across) * max(0.0, down) / min(self.side, other.side) ** 2


def compose(
    faces: list[np.ndarray], decoys: list[np.ndarray], pictures: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[float, float, float, float]]]:
    """Return a scene uint8 (h, w, 3) BGR and a box x, y, width, height in pixels for each of the first ``faces``.

    Faces are uint8 (s, s) grey or (s, s, 3) BGR squares, cut as FER2013's. Those that find no room are left out, the
    last first. Of ``decoys``, faces too, eyes, mouths and shuffled or turned parts are shown, without a box.
    """
    width, height = _size(rng)
    scene = draw_background(pictures, width, height, rng)
    squares = _places(len(faces), width, height, rng)
    grey = rng.random() < 0.3
    for decoy in decoys:
        _draw_decoy(scene, decoy, squares, pictures, rng)
    looks = [_Look(face, rng) for face in faces[: len(squares)]]
    # bodies first, so that no shoulder hides a face
    for square, look in zip(squares, looks, strict=True):
        if rng.random() < 0.75:
            _draw_body(scene, square, look, rng)
    for square, look in zip(squares, looks, strict=True):
        _draw_face(scene, square, look, rng)
        if rng.random() < 0.15:
            _cover(scene, square, pictures, rng)
    smallest = min((square.side for square in squares), default=float(LONG))
    return _camera(scene, smallest, grey, rng), [square.box(width, height) for square in squares]


def _size(rng: np.random.Generator) -> tuple[int, int]:
    short = round(LONG * 2 ** rng.uniform(-0.83, 0))
    return (LONG, short) if rng.random() < 0.6 else (short, LONG)


def _places(count: int, width: int, height: int, rng: np.random.Generator) -> list[Square]:
    """Return squares of one size, more or less; one alone may be so large that it fills the scene."""
    short = min(width, height)
    if count == 1:
        middle = short * (rng.uniform(0.5, 1.05) if rng.random() < 0.6 else rng.uniform(0.1, 0.5))
    else:
        middle = short * rng.uniform(0.5, 1) * min(0.5, 0.9 / np.sqrt(max(count, 1)))
    squares: list[Square] = []
    for _ in range(20 * count):
        if len(squares) == count:
            break
        side = max(SMALLEST, middle * (rng.uniform(0.75, 1.3) if count > 1 else 1))
        turned = rng.uniform(-45, 45) if rng.random() < 0.35 else rng.normal(0, 7)
        # one in four may reach over the edge
        room = side * (0.5 if rng.random() < 0.75 else 0.25)
        x, y = (rng.uniform(min(room, length - room), max(room, length - room)) for length in (width, height))
        square = Square(x, y, side, float(np.clip(turned, -45, 45)))
        _, _, w, h = square.box(width, height)
        if w * h >= _INSIDE * side * side and all(square.meets(other) <= _COVERED for other in squares):
            squares.append(square)
    return squares


class _Look:
    """A face tinted, and the colours of its skin and hair, (3,) BGR."""

    def __init__(self, face: np.ndarray, rng: np.random.Generator) -> None:
        face = cv2.resize(face, (_UNIT, _UNIT), interpolation=cv2.INTER_CUBIC)
        if rng.random() < 0.5:
            face = cv2.addWeighted(face, 1.6, cv2.GaussianBlur(face, (0, 0), 1.5), -0.6, 0)
        if face.ndim == 2:
            face = _tint(face, rng)
        self.face = face
        middle, top = face[_UNIT // 4 : 3 * _UNIT // 4, _UNIT // 4 : 3 * _UNIT // 4], face[: _UNIT // 12]
        self.skin = np.median(middle.reshape(-1, 3), axis=0)
        self.hair = np.percentile(top.reshape(-1, 3), 35, axis=0)
        if rng.random() < 0.3:
            self.hair = np.array([1, 1.15, 1.35]) * rng.uniform(8, 140)


def _tint(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a grey face in a skin's colours, as bright as it was; highlights keep little of them."""
    red, blue = rng.uniform(1.0, 1.4), rng.uniform(0.55, 1.0)
    green = (1 - 0.3 * red - 0.11 * blue) / 0.59
    level = np.arange(256, dtype=np.float32)[:, None]
    table = level * (1 + (np.array([blue, green, red]) - 1) * (1 - (level / 255) ** 2))
    return cv2.LUT(cv2.merge([face] * 3), table.clip(0, 255).astype(np.uint8)[None])


def _draw_face(scene: np.ndarray, square: Square, look: _Look, rng: np.random.Generator) -> None:
    """Set a face in by a soft oval, a soft square, a square with edges, or with its surroundings drawn out."""
    face, edge, side = look.face.copy(), _UNIT // 2, _FACE_SIDES * _UNIT
    if rng.random() < 0.15:
        _draw_glasses(face, rng)
    if rng.random() < 0.3:
        face = _shade(face, rng)
    layer = cv2.copyMakeBorder(face, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
    # blurred at half the size, which is faster
    mask: np.ndarray = np.zeros((side // 2, side // 2), np.uint8)
    u = _UNIT / 2
    kind = rng.choice(4, p=[0.6, 0.18, 0.07, 0.15])
    soft = rng.uniform(2, 7)
    if kind == 0:
        middle = side // 4, side // 4 + int(rng.uniform(0, 0.05) * u)
        axes = int(rng.uniform(0.38, 0.47) * u), int(rng.uniform(0.45, 0.53) * u)
        cv2.ellipse(mask, middle, axes, 0, 0, 360, 255, -1)
    elif kind == 3:
        soft = rng.uniform(8, 18)
        around = cv2.GaussianBlur(layer, (0, 0), 6)
        around[edge : edge + _UNIT, edge : edge + _UNIT] = face
        layer = around
        cv2.ellipse(mask, (side // 4, side // 4), (int(0.62 * u), int(0.7 * u)), 0, 0, 360, 255, -1)
    else:
        mask[edge // 2 : -edge // 2, edge // 2 : -edge // 2] = 255
    if kind != 2:
        mask = cv2.GaussianBlur(mask, (0, 0), soft / 2)
    mask = cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST if kind == 2 else cv2.INTER_LINEAR)
    _paste(scene, layer, mask, square, _UNIT, (side / 2, side / 2), square.degrees)


def _draw_glasses(face: np.ndarray, rng: np.random.Generator) -> None:
    colour, thick = rng.uniform(0, 90, 3).tolist(), int(rng.integers(1, 4))
    axes = int(rng.uniform(0.12, 0.165) * _UNIT), int(rng.uniform(0.08, 0.15) * _UNIT)
    dark = rng.random() < 0.15
    y = int(_EYE_Y * _UNIT)
    left, right = (int((0.5 + sign * _EYE_X) * _UNIT) for sign in (-1, 1))
    for x in (left, right):
        if rng.random() < 0.5:
            cv2.ellipse(face, (x, y), axes, 0, 0, 360, colour, -1 if dark else thick, cv2.LINE_AA)
        else:
            corners = (x - axes[0], y - axes[1]), (x + axes[0], y + axes[1])
            cv2.rectangle(face, *corners, colour, -1 if dark else thick, cv2.LINE_AA)
    cv2.line(face, (left + axes[0], y), (right - axes[0], y), colour, thick, cv2.LINE_AA)
    cv2.line(face, (0, y), (left - axes[0], y), colour, thick, cv2.LINE_AA)
    cv2.line(face, (right + axes[0], y), (_UNIT, y), colour, thick, cv2.LINE_AA)


def _shade(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a face lit from one side."""
    light = cv2.resize(rng.uniform(0.35, 1.4, (2, 2)).astype(np.float32), (_UNIT, _UNIT))
    return (face * light[..., None]).clip(0, 255).astype(np.uint8)


def _draw_body(scene: np.ndarray, square: Square, look: _Look, rng: np.random.Generator, hidden: bool = False) -> None:
    """Draw hair, neck and shoulders where a face is to be set in; ``hidden``: the head as seen from behind."""
    side, u = _BODY_SIDES * _BODY_UNIT, _BODY_UNIT
    x, y = side // 2, _BODY_ABOVE * u
    layer: np.ndarray = np.zeros((side, side, 3), np.uint8)
    mask: np.ndarray = np.zeros((side, side), np.uint8)
    hair = (look.hair * rng.uniform(0.7, 1.1)).clip(0, 255)
    skin = (look.skin * rng.uniform(0.6, 1.0)).clip(0, 255)
    cloth = rng.uniform(10, 240, 3)

    def oval(cx: float, cy: float, across: float, down: float, colour: np.ndarray) -> None:
        middle, axes = (int(x + cx * u), int(y + cy * u)), (int(across * u), int(down * u))
        cv2.ellipse(layer, middle, axes, 0, 0, 360, colour.tolist(), -1)
        cv2.ellipse(mask, middle, axes, 0, 0, 360, 255, -1)

    def bar(x0: float, y0: float, x1: float, y1: float, colour: np.ndarray) -> None:
        corners = (int(x + x0 * u), int(y + y0 * u)), (int(x + x1 * u), int(y + y1 * u))
        cv2.rectangle(layer, *corners, colour.tolist(), -1)
        cv2.rectangle(mask, *corners, 255, -1)

    hair_across, hair_down = rng.uniform(0.48, 0.72), rng.uniform(0.52, 0.8)
    if rng.random() < 0.4:  # long hair, behind the shoulders or before them
        bar(-hair_across, -0.1, hair_across, rng.uniform(0.4, 1.3), hair)
    neck = rng.uniform(0.2, 0.32)
    top, broad = rng.uniform(0.62, 0.85), rng.uniform(0.9, 1.6)
    bar(-neck, 0.2, neck, top + 0.25, skin)
    oval(0, top + 0.75, broad, 0.75, cloth)
    bar(-broad, top + 0.75, broad, _BODY_SIDES, cloth)
    if rng.random() < 0.5:
        oval(0, top, neck, rng.uniform(0.1, 0.35), skin)
    if rng.random() < 0.85:
        oval(0, -0.12, hair_across, hair_down, hair)
    oval(0, 0.05, 0.44, 0.53, hair if hidden else skin)
    if rng.random() < 0.6:
        for sign in (-1, 1):
            oval(sign * 0.44, -0.02, 0.07, 0.13, hair if hidden else skin)
    noise = rng.normal(0, rng.uniform(2, 16), (side // 4, side // 4)).astype(np.float32)
    grain = cv2.resize(noise, (side, side), interpolation=cv2.INTER_LINEAR)
    soft = rng.uniform(0.5, 2)
    layer = cv2.add(cv2.GaussianBlur(layer, (0, 0), soft), cv2.merge([grain] * 3), dtype=cv2.CV_8U)
    mask = cv2.GaussianBlur(mask, (0, 0), soft)
    _paste(scene, layer, mask, square, _BODY_UNIT, (x, y), square.degrees * rng.uniform(0.2, 1))


def _paste(
    scene: np.ndarray, layer: np.ndarray, mask: np.ndarray, square: Square, unit: int, middle: tuple[float, float],
    degrees: float,
) -> None:  # fmt: skip
    """Set a layer, as far as its mask covers, into a scene: its ``middle`` at the square's, ``unit`` pixels a side."""
    layer, scale = cv2.merge([*cv2.split(layer), mask]), square.side / unit
    if scale < 0.7:  # warpAffine does not average
        size = [max(1, round(side * scale)) for side in layer.shape[1::-1]]
        middle = middle[0] * size[0] / layer.shape[1], middle[1] * size[1] / layer.shape[0]
        layer, scale = cv2.resize(layer, size, interpolation=cv2.INTER_AREA), 1.0
    matrix: np.ndarray = cv2.getRotationMatrix2D(middle, degrees, scale)
    matrix[:, 2] += (square.x - middle[0], square.y - middle[1])
    height, width = layer.shape[:2]
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ matrix.T
    x0, y0 = np.floor(corners.min(0)).astype(int).clip(0).tolist()
    x1, y1 = np.ceil(corners.max(0)).astype(int).clip(0, scene.shape[1::-1]).tolist()
    if x0 >= x1 or y0 >= y1:
        return
    matrix[:, 2] -= x0, y0
    placed = cv2.warpAffine(layer, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    _blend(scene[y0:y1, x0:x1], placed[..., :3], placed[..., 3])


def _blend(part: np.ndarray, layer: np.ndarray, mask: np.ndarray) -> None:
    share = mask[..., None].astype(np.float32) / 255
    part[:] = part + (layer - part.astype(np.float32)) * share + 0.5


def _cover(scene: np.ndarray, square: Square, pictures: list[np.ndarray], rng: np.random.Generator) -> None:
    """Cover up to nearly half of a face from one side with something else."""
    side = round(square.side)
    share = int(side * rng.uniform(0.2, 0.45))
    left, top = round(square.x - square.side / 2), round(square.y - square.side / 2)
    kind = rng.integers(4)
    x0 = left + (side - share if kind == 0 else 0)
    y0 = top + (side - share if kind == 1 else 0)
    w, h = (share, side) if kind in (0, 2) else (side, share)
    x1, y1 = min(x0 + w, scene.shape[1]), min(y0 + h, scene.shape[0])
    x0, y0 = max(x0, 0), max(y0, 0)
    if x0 < x1 and y0 < y1:
        scene[y0:y1, x0:x1] = part_of(pictures, x1 - x0, y1 - y0, rng) if rng.random() < 0.5 else rng.uniform(0, 255, 3)


def _draw_decoy(
    scene: np.ndarray, face: np.ndarray, squares: list[Square], pictures: list[np.ndarray], rng: np.random.Generator
) -> None:
    """Draw what must not be found away from the faces: a part of a face, a shuffled one, a head without, a square."""
    height, width = scene.shape[:2]
    side = max(SMALLEST, min(width, height) * rng.uniform(0.08, 0.6))
    square = Square(rng.uniform(0, width), rng.uniform(0, height), side, rng.uniform(-180, 180))
    if any(square.meets(other) > 0.02 for other in squares):
        return
    look = _Look(face, rng)
    kind, half = rng.integers(6), _UNIT // 2
    if kind == 0:  # the back of a head, or one of bare skin
        _draw_body(scene, Square(square.x, square.y, side, rng.normal(0, 8)), look, rng, rng.random() < 0.6)
        return
    if kind == 1:
        picture = part_of(pictures, _UNIT, _UNIT, rng)
        picture = picture if rng.random() < 0.5 else _tint(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), rng)
    elif kind == 2:
        third = _UNIT // 3
        tiles = [look.face[y : y + third, x : x + third] for y in (0, third, 2 * third) for x in (0, third, 2 * third)]
        order = np.roll(rng.permutation(9), 1)
        tiles = [np.rot90(tiles[i], int(rng.integers(4))) for i in order]
        picture = np.vstack([np.hstack(tiles[i : i + 3]) for i in (0, 3, 6)])
    else:  # one eye, the mouth, or any quarter, at any angle
        x, y = (((0.08, 0.5)[rng.integers(2)], 0.2), (0.25, 0.6), tuple(rng.uniform(0, 0.5, 2)))[kind - 3]
        x, y = int(x * _UNIT), int(y * _UNIT)
        part = look.face[y : y + int(0.38 * _UNIT), x : x + int(0.42 * _UNIT)]
        picture = cv2.resize(part, (_UNIT, _UNIT), interpolation=cv2.INTER_LINEAR)
    mask: np.ndarray = np.zeros((_UNIT, _UNIT), np.uint8)
    if rng.random() < 0.5:
        mask[2:-2, 2:-2] = 255
    else:
        cv2.ellipse(mask, (half, half), (int(0.4 * _UNIT), int(rng.uniform(0.25, 0.42) * _UNIT)), 0, 0, 360, 255, -1)
        mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(1, 6))
    degrees = square.degrees if kind > 2 else rng.normal(0, 15)
    _paste(scene, picture, mask, square, _UNIT, (half, half), degrees)


def _camera(scene: np.ndarray, smallest: float, grey: bool, rng: np.random.Generator) -> np.ndarray:
    """Exposure, dark or bright, cast, few pixels, blur and noise, as far as the smallest face bears them."""
    levels = 255 * (np.arange(256) / 255) ** rng.uniform(0.6, 1.6)
    if rng.random() < 0.15:
        levels = levels * rng.uniform(0.25, 0.6)
    else:
        levels = (levels - 128) * rng.uniform(0.6, 1.25) + 128 + rng.uniform(-35, 35)
    table = levels[:, None] * rng.uniform(0.88, 1.12, 3)
    scene = cv2.LUT(scene, table.clip(0, 255).astype(np.uint8)[None])
    if grey:
        scene = cv2.cvtColor(cv2.cvtColor(scene, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    height, width = scene.shape[:2]
    if rng.random() < 0.3 and (fewer := rng.uniform(1, min(4, smallest / 16))) > 1.05:
        small = cv2.resize(scene, (round(width / fewer), round(height / fewer)), interpolation=cv2.INTER_AREA)
        scene = cv2.resize(small, (width, height), interpolation=int(rng.integers(3)))
    if rng.random() < 0.4:
        scene = cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.2, 0.4 + 0.02 * smallest))
    noise = rng.standard_normal((height, width), np.float32) * np.float32(rng.uniform(0, 10) * (rng.random() < 0.6))
    return cv2.add(scene, cv2.merge([noise] * 3), dtype=cv2.CV_8U)
