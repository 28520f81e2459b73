"""Predictor: crops as in preparation, one batch or many, odd pictures, and what the whole way from a photo costs."""

import csv
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from fer import Predictor, load_checkpoint
from fer.data.photos import PhotoRow, crop_face, decode_photos, read_photo
from fer.data.source import FaceFormat, PhotoLimits
from fer.data.synthetic.face import Face as DrawnFace
from fer.data.synthetic.face import draw_face
from fer.errors import InputError
from fer.labels import affectnet_to_label
from fer.prediction.detection import Detection
from fer.prediction.detectors import open_detector
from fer.prediction.predictor import BATCH_FACES, FacePredictor

LABELS = ("dark", "middle", "bright")


class ByBrightness:
    """A network without weights: the probability of "bright" is the mean of a face, of "dark" the rest."""

    labels, name = LABELS, "brightness"

    def __init__(self, face=None):
        self.face, self.batches = face or FaceFormat(8, "rgb"), []

    def __call__(self, faces):
        assert faces.dtype == np.uint8 and faces.shape[1:] == self.face.shape
        self.batches.append(len(faces))
        self.seen = faces
        bright = faces.reshape(len(faces), -1).mean(1, dtype=np.float32) / 255
        return np.stack([1 - bright, np.zeros_like(bright), bright], 1)


def fixed(*boxes):
    return lambda picture, min_size=None, quick=False: [Detection(box, 1.0) for box in boxes]


def test_a_face_has_box_probabilities_label_and_scores():
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[10:30, 20:40] = 204
    (face,) = FacePredictor(ByBrightness(), fixed((20.0, 10.0, 20.0, 20.0)))(picture)
    assert face.box == (20.0, 10.0, 20.0, 20.0) and face.score == 1.0
    # 204 / 255 = 0.8
    assert face.label == "bright" and face.confidence == pytest.approx(0.8)
    assert face.probabilities == pytest.approx({"dark": 0.2, "middle": 0.0, "bright": 0.8})


def test_below_min_confidence_there_is_no_label():
    picture = np.full((9, 9, 3), 153, np.uint8)  # 153 / 255 = 0.6
    for least, label in ((0.59, "bright"), (0.61, None)):
        (face,) = FacePredictor(ByBrightness(), open_detector("whole"), least)(picture)
        assert face.label == label and face.confidence == pytest.approx(0.6)


def test_the_crop_is_widened_by_the_networks_margin_and_repeats_the_edge():
    picture = np.zeros((100, 100), np.uint8)
    picture[40:60, 40:60] = 255
    network = ByBrightness(FaceFormat(40, "grey", 1.0))
    predictor = FacePredictor(
        network, fixed((40.0, 40.0, 20.0, 20.0), (90.0, 40.0, 20.0, 20.0), (120.0, 0.0, 9.0, 9.0))
    )
    inside, at_the_edge = predictor(picture)
    # twice as wide and high: the white quarter of 40 x 40
    assert np.array_equal(network.seen[0], picture[30:70, 30:70]) and inside.probabilities["bright"] == 0.25
    # x 80..119 of which the picture has 80..99; the third box lies outside and is no face
    assert np.array_equal(network.seen[1], np.pad(picture[30:70, 80:], ((0, 0), (0, 20)), mode="edge"))
    assert at_the_edge.box == (90.0, 40.0, 20.0, 20.0) and at_the_edge.probabilities["bright"] == 0.0


def test_a_box_over_the_edge_is_cut_as_preparation_cuts_it(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), photo[:, :, ::-1])
    boxes = [(-7.0, -9.5, 33.0, 40.0), (55.2, 30.0, 31.0, 44.0), (-40.0, -40.0, 150.0, 150.0), (10.0, 10.0, 9.0, 9.0)]
    network = ByBrightness(FaceFormat(24, "rgb", 0.25))
    FacePredictor(network, fixed(*boxes))(photo)
    rows = [PhotoRow("a", "a.png", str(tmp_path / "a.png"), ("train",), 0, box) for box in boxes]
    prepared = decode_photos(rows, network.face, PhotoLimits(), ("a",))
    np.testing.assert_array_equal(network.seen, prepared.image)
    assert prepared.reaches_over.tolist() == [True, True, True, False]


def test_pictures_in_a_batch_are_named_as_alone_and_together():
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (30, 30 + i % 7, 3), np.uint8) for i in range(BATCH_FACES)]
    network = ByBrightness()
    predictor = FacePredictor(
        network, lambda picture, **_: fixed((0, 0, 9, 9), (5, 5, 9, 9))(picture)[: picture.shape[1] % 3]
    )
    together = predictor.batch(pictures)
    faces = sum(map(len, together))
    assert network.batches == [BATCH_FACES] * (faces // BATCH_FACES) + [faces % BATCH_FACES]
    assert {len(found) for found in together} == {0, 1, 2}
    assert together == [predictor(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(predictor, pictures)) == together
    assert predictor.batch([]) == []


def test_no_face_is_an_empty_result():
    predictor = FacePredictor(ByBrightness(), open_detector("haar"))
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    shapes = [(1, 1), (1, 1, 3), (10000, 50, 3), (50, 10000), (2, 3, 4)]
    assert predictor.batch([noise, *(np.zeros(shape, np.uint8) for shape in shapes)]) == [[]] * 6
    assert predictor.network.batches == []


def test_grey_rgb_and_rgba_arrays_and_views_of_them():
    picture = skimage.data.astronaut()
    predictor = FacePredictor(ByBrightness(), open_detector("haar"))
    (face,) = predictor(picture)
    # worked by eye in prediction/test_detectors.py: the mouth is at (221, 145)
    assert face.box[0] < 221 < face.box[0] + face.box[2] and face.box[1] < 145 < face.box[1] + face.box[3]
    alpha = np.dstack([picture, np.zeros(picture.shape[:2], np.uint8)])
    assert predictor(alpha) == predictor(picture[:, ::-1][:, ::-1]) == [face]
    (grey,) = predictor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    assert grey.box == face.box


@pytest.mark.parametrize(
    "picture, message",
    [
        (np.full((9, 9, 3), 2.0), r"floats from 0 to 1 expected, got 2 to 2; scale them"),
        (np.full((9, 9), np.nan), "floats from 0 to 1 expected, got nan"),
        (np.zeros((9, 9), np.uint16), "uint8 0..255 or floats from 0 to 1 expected, got uint16"),
        (np.zeros((9, 9, 2), np.uint8), r"got \(9, 9, 2\)"),
        (np.zeros((1, 3, 9, 9), np.uint8), r"got \(1, 3, 9, 9\)"),
        (np.zeros(9, np.uint8), r"got \(9,\)"),
        (np.zeros((0, 9, 3), np.uint8), r"got \(0, 9, 3\)"),
        ([[0]], "got list"),
        (torch.eye(9).to_sparse(), "a tensor without plain values: torch.sparse_coo, torch.float32"),
        (torch.zeros(3, 9, 9, device="meta"), "a tensor without plain values: "),
        ("missing.png", "missing.png: missing file"),
    ],
)
def test_what_is_no_picture_is_refused(picture, message):
    with pytest.raises(InputError, match=message):
        FacePredictor(ByBrightness(), open_detector("whole"))(picture)


def test_files_of_every_kind_are_the_same_picture(tmp_path):
    small = np.array(Image.fromarray(skimage.data.astronaut()).resize((64, 48)))
    names = {"rgb.png": small, "rgba.png": np.dstack([small, np.full(small.shape[:2], 9, np.uint8)])}
    for name, array in names.items():
        Image.fromarray(array).save(tmp_path / name)
    cv2.imwrite(str(tmp_path / "16bit.png"), small[:, :, ::-1].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise, so stored turned the other way
    Image.fromarray(np.rot90(small).copy()).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(small).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    network = ByBrightness(FaceFormat(40, "rgb"))
    predictor = FacePredictor(network, open_detector("whole"))
    (expected,) = predictor(small)
    for name in (*names, "16bit.png", "turned.png"):
        assert predictor(tmp_path / name) == [expected], name
    (cmyk,) = predictor(str(tmp_path / "cmyk.jpg"))
    assert cmyk.box == (0, 0, 64, 48) and cmyk.confidence == pytest.approx(expected.confidence, abs=0.02)


def test_a_broken_file_is_refused_with_its_name_and_reason(tmp_path):
    whole = cv2.imencode(".png", skimage.data.astronaut())[1].tobytes()
    for name, data, reason in (
        ("half", whole[:5000], "truncated"),
        ("empty", b"", "zero bytes"),
        ("n", b"x", "not an"),
    ):
        (tmp_path / f"{name}.jpg").write_bytes(data)
        with pytest.raises(InputError, match=rf"{name}\.jpg: {reason}"):
            FacePredictor(ByBrightness(), open_detector("whole"))(tmp_path / f"{name}.jpg")


def test_a_jpeg_in_colour_turned_grey_is_its_y_channel_as_in_preparation(tmp_path):
    photo = np.full((240, 320, 3), (160, 170, 150), np.uint8)
    draw_face(photo, DrawnFace((150, 120), 50, (0.0, 0.0, 0.0), {12: (1.0, 1.0)}), np.random.default_rng(0))
    cv2.imwrite(str(tmp_path / "face.jpg"), photo)
    prepared = read_photo(str(tmp_path / "face.jpg"), "grey", PhotoLimits()).astype(int)
    ours = cv2.cvtColor(read_photo(str(tmp_path / "face.jpg"), "rgb", PhotoLimits()), cv2.COLOR_RGB2GRAY).astype(int)
    difference = np.abs(prepared - ours)
    # decoding clips colours to 0..255, so saturated pixels differ by more than rounding
    print(f"mean difference {difference.mean():.3f}, largest {difference.max()}, over 1: {(difference > 1).mean():.2%}")
    assert difference.mean() < 0.5 and (difference > 1).mean() < 0.02


@pytest.mark.slow
def test_labels_from_the_whole_photo_against_the_annotated_boxes(demo):
    folder, ckpt = demo / "data/sample", demo / "runs/demo/latest/checkpoints/best.ckpt"
    photos = {}
    with open(folder / "validation.csv", newline="") as stream:
        for row in csv.reader(stream):
            photos.setdefault(row[0], []).append((tuple(map(float, row[1:5])), affectnet_to_label(int(row[6]))))
    finder = FacePredictor.load(ckpt, device="cpu")
    annotated, found, on_annotated, on_found = 0, 0, 0, 0
    with_face = 0
    results = finder.batch([folder / "Manually_Annotated_Images" / path for path in photos])
    for (path, rows), faces in zip(photos.items(), results, strict=True):
        rows = [row for row in rows if row[1] is not None]
        boxes = FacePredictor(finder.network, fixed(*[box for box, _ in rows]))
        for (box, label), named in zip(rows, boxes(folder / "Manually_Annotated_Images" / path), strict=True):
            annotated += 1
            on_annotated += named.label == finder.labels[label]
            best = max(faces, key=lambda face: overlap(face.box, box), default=None)
            if best is not None and overlap(best.box, box) > 0.3:
                found += 1
                on_found += best.label == finder.labels[label]
                with_face += named.label == finder.labels[label]
    print(
        f"\n{annotated} annotated faces, {on_annotated / annotated:.3f} named right on their boxes; Haar finds "
        f"{found / annotated:.3f}: {on_found / found:.3f} of them named right on its boxes, {with_face / found:.3f} on "
        f"the annotated ones; {on_found / annotated:.3f} of all found and named right"
    )
    assert on_annotated / annotated > 0.9
    # drawn faces lack the shading that the cascade was trained on; what it finds, it must frame well
    assert found / annotated > 0.45 and on_found / found > with_face / found - 0.06


def overlap(a, b):
    """Return the intersection over union of two boxes."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def test_other_classes_are_masked_as_if_their_logits_were_minus_infinity():
    picture = skimage.data.astronaut()
    all_of_them = Predictor.load("fer2013_vgg9", faces="haar", device="cpu")
    three = Predictor.load("fer2013_vgg9", faces="haar", device="cpu", classes=["neutral", "Sad", "anger"])
    assert three.labels == ("Angry", "Sad", "Neutral")
    before, after = all_of_them(picture)[0].probabilities, three(picture)[0].probabilities
    kept = {name: before[name] for name in three.labels}
    assert after == pytest.approx({name: p / sum(kept.values()) for name, p in kept.items()}, abs=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classes": ["Happy"]}, "give two or more of Angry"),
        ({"classes": ["Happy", "Bored"]}, "Bored is not one of Angry"),
        ({"margin": 3.0}, "margin=3.0: not a fraction"),
        ({"margin": float("nan")}, "margin=nan: not a fraction"),
        ({"min_confidence": float("nan")}, "min_confidence=nan is not a probability"),
        ({"min_confidence": 50}, "min_confidence=50 is not a probability"),
        ({"min_confidence": "0.5"}, "min_confidence=0.5 is not a probability"),
    ],
)
def test_margins_classes_and_probabilities_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Predictor.load("fer2013_vgg9", faces="whole", device="cpu", **options)


def test_a_margin_widens_what_the_network_sees():
    photo = skimage.data.astronaut()
    box = (166, 62, 116, 116)
    wide = Predictor.load("fer2013_vgg9", faces=lambda _: ([box], [1.0]), device="cpu", margin=0.5)
    # half of the margin on each side: the same box, drawn by hand
    by_hand = Predictor.load("fer2013_vgg9", faces=lambda _: ([(137, 33, 174, 174)], [1.0]), device="cpu")
    one, other = wide(photo)[0], by_hand(photo)[0]
    assert one.box == box and one.probabilities == other.probabilities


def test_ten_crops_are_averaged():
    face = skimage.data.astronaut()[62:178, 166:282]
    predictor = Predictor.load("fer2013_vgg9", faces="whole", device="cpu", tta=True)
    model = load_checkpoint("fer2013_vgg9")
    stored = torch.from_numpy(crop_face(face, (0, 0, 116, 116), model.face))[None, None]
    crops = [stored[..., y : y + model.crop, x : x + model.crop] for y in (0, 4) for x in (0, 4)]
    crops.append(stored[..., 2 : 2 + model.crop, 2 : 2 + model.crop])
    with torch.inference_mode():
        logits = [
            model.net(crop.flip(-1).float() / 255 if turned else crop.float() / 255)
            for crop in crops
            for turned in (False, True)
        ]
    expected = torch.stack(logits).mean(0).softmax(1)[0]
    assert [*predictor(face)[0].probabilities.values()] == pytest.approx(expected.tolist(), abs=1e-5)
