"""Photos to faces: crop geometry worked by hand, and every kind of broken file refused with its reason."""

import struct
import tracemalloc
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from pillow_heif import register_heif_opener

from fer.data.photos import PhotoRow, crop_box, decode_photos, fit, read_photo, relative_path
from fer.data.source import FaceFormat, PhotoLimits, Skipped

GREY10 = FaceFormat(size=10)


def row(file, box=None, splits=("train",), label=0, **extra):
    return PhotoRow("affectnet", file.name, str(file), splits, label, box, **extra)


def decode(rows, face=GREY10, limits=PhotoLimits()):  # noqa: B008 (frozen)
    return decode_photos(rows, face, limits, ("affectnet",))


def reasons(faces):
    return [skipped.reason for skipped in faces.skipped]


@pytest.fixture
def gradient(tmp_path):
    """A photo 120 wide and 80 high whose pixel at x, y is x + y."""
    cv2.imwrite(str(tmp_path / "gradient.png"), np.add.outer(np.arange(80), np.arange(120)).astype(np.uint8))
    return tmp_path / "gradient.png"


def flat(path, value, size=(30, 30)):
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))
    return path


@pytest.mark.parametrize(
    ("box", "margin", "expected"),
    [
        ((30, 10, 40, 20), 0.0, (30, 10, 70, 30)),
        ((30, 10, 40, 20), 0.5, (20, 5, 80, 35)),  # 20 wider and 10 higher, half on each side
        ((30, 10, 40, 20), 2.0, (0, 0, 100, 50)),  # clipped on all sides
        ((-5, -7, 20, 20), 0.0, (0, 0, 15, 13)),
        ((90, 45, 20, 20), 0.0, (90, 45, 100, 50)),
        ((10, 10, 5, 5), 0.1, (10, 10, 15, 15)),  # a quarter of a pixel rounds away: 9.75 -> 10, 15.25 -> 15
        ((100, 10, 20, 20), 1.0, None),  # only the margin would lie in the photo
        ((-20, 10, 20, 20), 0.0, None),
        ((10, 50, 20, 20), 0.0, None),
        ((10, 10, 0, 20), 0.0, None),
        ((10, 10, 20, -1), 0.0, None),
    ],
)
def test_crop_box(box, margin, expected):
    assert crop_box(100, 50, box, margin) == expected


def test_crop_has_x_to_the_right_and_y_down(gradient):
    faces = decode([row(gradient, (70, 10, 40, 20))])
    # Each stored pixel j, i averages 4 columns and 2 rows: mean x = 71.5 + 4 j, mean y = 10.5 + 2 i.
    expected = np.add.outer(2 * np.arange(10), 4 * np.arange(10)) + 82
    np.testing.assert_array_equal(faces.image[0], expected)
    np.testing.assert_array_equal(faces.box[0], [70, 10, 40, 20])


def test_a_margin_over_the_edge_repeats_it_and_the_stored_box_is_the_annotated_one(gradient):
    faces = decode([row(gradient, (100, 60, 40, 20))], FaceFormat(size=10, margin=1.0))
    # columns 80..159 and rows 50..89, of which the photo has none from 120 and from 80 on
    x, y = np.minimum(np.arange(80, 160), 119), np.minimum(np.arange(50, 90), 79)
    expected = np.add.outer(y.reshape(10, 4).mean(1), x.reshape(10, 8).mean(1))
    np.testing.assert_allclose(faces.image[0], expected, atol=0.51)
    np.testing.assert_array_equal(faces.box[0], [100, 60, 20, 20])
    assert faces.reaches_over.tolist() == [True]


def test_a_face_at_the_edge_keeps_its_shape(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 96), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), noise)
    faces = decode([row(tmp_path / "a.png", (0, -28, 96, 96)), row(tmp_path / "a.png", (0, 0, 40, 40))], FaceFormat(96))
    # 96 x 96 of which the photo has rows 28 to 67: not one pixel of these is stretched
    np.testing.assert_array_equal(faces.image[0], np.pad(noise, ((28, 28), (0, 0)), mode="edge"))
    np.testing.assert_array_equal(faces.box[0], [0, 0, 96, 40])
    assert faces.reaches_over.tolist() == [True, False]


def test_landmarks_of_a_face_at_the_edge_stay_on_it(gradient):
    points = np.stack([np.linspace(-5, 12, 68), np.linspace(0, 18, 68)], 1)
    faces = decode([row(gradient, (-8, -4, 20, 40), landmarks=points.ravel())])
    # 20 x 40 pixels become 10 x 10, counted from the box's corner
    np.testing.assert_allclose(faces.landmarks[0], (points + (8, 4)) / (2, 4), atol=1e-4)


def test_a_box_of_any_size_costs_no_memory(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((30, 30), 7, np.uint8))
    sides = (2**31, 1_000_000, 99_999)
    rows = [row(tmp_path / "a.png", (-5, -5, side, side)) for side in sides]
    rows += [row(tmp_path / "a.png", (-5, 5, 2**31, 10)), row(tmp_path / "a.png", (-500, -500, 2000, 2000))]
    tracemalloc.start()
    faces = decode(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reasons(faces) == ["box far larger than the photo"] * 4 and peak < 10e6
    assert (faces.image == 7).all() and len(faces.image) == 1


def test_several_faces_in_one_photo(gradient):
    faces = decode([row(gradient, (0, 0, 10, 10)), row(gradient, (60, 20, 10, 10))])
    grid = np.add.outer(np.arange(10), np.arange(10))
    np.testing.assert_array_equal(faces.image, [grid, grid + 80])


def test_row_in_two_splits_stands_twice(gradient):
    faces = decode([row(gradient, splits=("val", "test"), label=3), row(gradient)])
    assert faces.split.tolist() == [1, 2, 0]
    assert faces.label.tolist() == [3, 3, 0]
    np.testing.assert_array_equal(faces.image[0], faces.image[1])


def test_landmarks_are_moved_and_scaled_with_the_crop(gradient):
    x, y = np.linspace(70, 110, 68), np.linspace(10, 30, 68)
    text = ";".join(f"{a:.3f};{b:.3f}" for a, b in zip(x, y, strict=True))
    faces = decode([
        row(gradient, (70, 10, 40, 20), landmarks=text, valence=0.25, arousal=-0.5),
        row(gradient, (70, 10, 40, 20), landmarks="1;2;3"),
        row(gradient, landmarks=np.stack([x, y], 1).ravel()),
    ])  # fmt: skip
    # The box is 40 x 20, the face 10 x 10: a quarter in x, a half in y.
    np.testing.assert_allclose(faces.landmarks[0], np.stack([(x - 70) / 4, (y - 10) / 2], 1), atol=1e-3)
    assert np.isnan(faces.landmarks[1]).all()
    np.testing.assert_allclose(faces.landmarks[2], np.stack([x / 12, y / 8], 1), atol=1e-3)
    assert (faces.valence[0], faces.arousal[0]) == (0.25, -0.5)
    assert np.isnan(faces.valence[1])


def test_unreadable_photo_never_gets_the_previous_face(tmp_path):
    (tmp_path / "zero.jpg").touch()
    files = [flat(tmp_path / "a.png", 40), tmp_path / "zero.jpg", tmp_path / "gone.jpg", flat(tmp_path / "b.png", 90)]
    faces = decode([row(file, label=index) for index, file in enumerate(files)])
    assert faces.image.mean((1, 2)).tolist() == [40, 90]
    assert faces.label.tolist() == [0, 3]
    assert faces.path == ["a.png", "b.png"]
    assert faces.skipped == [
        Skipped("affectnet", "zero.jpg", "zero bytes"), Skipped("affectnet", "gone.jpg", "missing file"),
    ]  # fmt: skip
    assert all(len(getattr(faces, name)) == 2 for name in ("split", "source", "valence", "arousal", "landmarks", "box"))


def test_first_row_unreadable_and_every_face_of_a_bad_photo_is_listed(tmp_path):
    (tmp_path / "zero.jpg").touch()
    faces = decode([
        row(tmp_path / "zero.jpg", (0, 0, 5, 5)), row(tmp_path / "zero.jpg", (5, 5, 5, 5)),
        Skipped("affectnet", "x", "handed on"), row(flat(tmp_path / "a.png", 7)),
    ])  # fmt: skip
    assert reasons(faces) == ["zero bytes", "zero bytes", "handed on"]
    assert faces.image.shape == (1, 10, 10) and (faces.image == 7).all()


def png_claiming(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def encoded(suffix, image=None):
    return bytearray(cv2.imencode(suffix, np.full((30, 30, 3), 99, np.uint8) if image is None else image)[1].tobytes())


def test_bombs_are_refused_from_the_header(tmp_path):
    (tmp_path / "a.png").write_bytes(png_claiming(50_000, 50_000))
    jpeg = encoded(".jpg")
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 50_000, 50_000)
    (tmp_path / "a.jpg").write_bytes(jpeg)
    bmp = encoded(".bmp")
    bmp[18:26] = struct.pack("<ii", 50_000, 50_000)
    (tmp_path / "a.bmp").write_bytes(bmp)
    flat(tmp_path / "ok.png", 1, (30, 30))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's own bomb warning must not come first
        faces = decode([row(tmp_path / name) for name in ("a.png", "a.jpg", "a.bmp")])
        assert reasons(faces) == ["too many pixels"] * 3
    assert reasons(decode([row(tmp_path / "ok.png")], limits=PhotoLimits(max_pixels=899))) == ["too many pixels"]
    assert reasons(decode([row(tmp_path / "ok.png")], limits=PhotoLimits(max_pixels=900))) == []


def test_truncated_files(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    thumbnail = encoded(".jpg")
    assert thumbnail.endswith(b"\xff\xd9")
    body = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + thumbnail
    jpeg = encoded(".jpg", noise)
    with_thumbnail = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]
    whole = {"thumb.jpg": with_thumbnail, "a.jpg": jpeg}
    whole |= {"a.png": encoded(".png", noise), "a.bmp": encoded(".bmp", noise)}
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / f"cut-{name}").write_bytes(data[: len(data) * 6 // 10])
    (tmp_path / "padded.jpg").write_bytes(jpeg + b"\0" * 50)  # a whole picture with something behind it
    assert reasons(decode([row(tmp_path / name) for name in [*whole, "padded.jpg"]])) == []
    assert reasons(decode([row(tmp_path / f"cut-{name}") for name in whole])) == ["truncated"] * 4


def quarters():
    """Return a picture 96 wide and 64 high: red, green, blue and white quarters."""
    picture = np.full((64, 96, 3), 255, np.uint8)
    picture[:32, :48], picture[:32, 48:], picture[32:, :48] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return picture


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["heic", "avif"])
def test_heic_and_avif_stand_upright(tmp_path, kind, orientation):
    picture, exif = Image.fromarray(quarters()), Image.Exif()
    exif[0x0112] = orientation
    if kind == "heic":
        register_heif_opener()
        picture.save(tmp_path / "photo", "HEIF", exif=exif.tobytes(), quality=95)
    else:
        picture.save(tmp_path / "photo", "AVIF", exif=exif.tobytes(), quality=95)
    picture.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(picture))
    photo = read_photo(str(tmp_path / "photo"), "rgb", PhotoLimits())
    assert photo.shape == expected.shape and np.abs(photo.astype(int) - expected).mean() < 4
    grey = read_photo(str(tmp_path / "photo"), "grey", PhotoLimits())
    assert np.abs(grey.astype(int) - cv2.cvtColor(expected, cv2.COLOR_RGB2GRAY)).mean() < 4
    assert read_photo(str(tmp_path / "photo"), "rgb", PhotoLimits(max_pixels=6143)) == "too many pixels"
    content = (tmp_path / "photo").read_bytes()
    (tmp_path / "cut").write_bytes(content[: len(content) * 8 // 10])
    assert read_photo(str(tmp_path / "cut"), "rgb", PhotoLimits()) in ("truncated", "not an image")


def test_jpeg_2000_is_read(tmp_path):
    Image.fromarray(quarters()).save(tmp_path / "photo.jp2")
    photo = read_photo(str(tmp_path / "photo.jp2"), "rgb", PhotoLimits())
    np.testing.assert_array_equal(photo, quarters())


def test_a_jpeg_without_an_end_marker_is_read_as_far_as_it_goes_where_that_is_asked_for(tmp_path):
    whole = encoded(".jpg", cv2.cvtColor(np.kron(quarters(), np.ones((8, 8, 1), np.uint8)), cv2.COLOR_RGB2BGR))
    files = {"whole": whole, "open": whole[:-2], "half": whole[: len(whole) * 7 // 10], "start": whole[:200]}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    cut: list[str] = []
    found = {name: read_photo(str(tmp_path / name), "rgb", PhotoLimits(), cut) for name in files}
    assert cut == [str(tmp_path / "open"), str(tmp_path / "half")] and found["start"] == "not an image"
    # Pillow's decoder beside OpenCV's
    np.testing.assert_allclose(found["open"].astype(int), found["whole"], atol=4)
    # the upper part is there, the lower is grey
    np.testing.assert_allclose(found["half"][:16].astype(int), found["whole"][:16], atol=4)
    assert np.ptp(found["half"][-1].astype(int), axis=1).max() < 8
    strict = {name: read_photo(str(tmp_path / name), "rgb", PhotoLimits()) for name in ("open", "half")}
    assert strict == {"open": "truncated", "half": "truncated"}


def test_files_that_are_no_photo(tmp_path):
    (tmp_path / "text.jpg").write_text("<html>404</html>")
    (tmp_path / "start.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "start.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "empty.png").write_bytes(png_claiming(20, 20))  # whole, but without pixels
    (tmp_path / "folder.jpg").mkdir()
    names = ["text.jpg", "start.jpg", "start.png", "empty.png", "folder.jpg", "text.jpg/a.jpg", "nul\0.jpg"]
    assert reasons(decode([row(tmp_path / name) for name in names])) == [
        "not an image", "not an image", "not an image", "not an image", "not a file", "missing file", "missing file",
    ]  # fmt: skip


def test_byte_limits_and_box_outside(tmp_path, gradient):
    size = gradient.stat().st_size
    rows = [row(gradient)]
    assert reasons(decode(rows, limits=PhotoLimits(min_bytes=size, max_bytes=size))) == []
    assert reasons(decode(rows, limits=PhotoLimits(min_bytes=size + 1))) == ["smaller than data.min_bytes"]
    assert reasons(decode(rows, limits=PhotoLimits(max_bytes=size - 1))) == ["larger than data.max_bytes"]
    assert reasons(decode([row(gradient, (120, 0, 5, 5))])) == ["box outside the photo"]


def test_unusual_pictures_are_read(tmp_path):
    color = np.zeros((12, 10, 3), np.uint8)
    color[:] = (200, 100, 50)
    picture = Image.fromarray(color)
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    picture.convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(np.full((12, 10), 128 * 257, np.uint16)).save(tmp_path / "deep.png")
    picture.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (10, 12))])
    picture.save(tmp_path / "moving.webp", save_all=True, append_images=[Image.new("RGB", (10, 12))], lossless=True)
    picture.save(tmp_path / "lzw.tif", compression="tiff_lzw")
    names = ["cmyk.jpg", "alpha.png", "moving.gif", "moving.webp", "lzw.tif", "deep.png"]
    faces = decode([row(tmp_path / name) for name in names], FaceFormat(10, "rgb"))
    assert faces.skipped == []
    for image in faces.image[:5]:
        np.testing.assert_allclose(image.astype(int), np.broadcast_to([200, 100, 50], (10, 10, 3)), atol=4)
    assert (faces.image[5] == 128).all()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg"])
def test_a_tiff_of_luma_and_colour_is_read_and_a_cut_one_refused(tmp_path, compression):
    picture = Image.new("RGB", (24, 16), (200, 100, 50))
    picture.convert("YCbCr").save(tmp_path / "a.tif", compression=compression)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[262] == 6
    photo = read_photo(str(tmp_path / "a.tif"), "rgb", PhotoLimits())
    assert photo.shape == (16, 24, 3) and np.abs(photo.astype(int) - (200, 100, 50)).max() <= 4
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[:-10])
    # of what is compressed the table, at the end, is cut too
    said = read_photo(str(tmp_path / "a.tif"), "rgb", PhotoLimits())
    assert said == "truncated" if compression == "raw" else said in ("truncated", "not an image")


def test_a_tiff_of_numbers_without_black_and_white_is_said(tmp_path):
    ramp = np.linspace(0, 1, 80).reshape(8, 10)
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "float.tif")
    Image.fromarray((255 * ramp).astype(np.int32)).save(tmp_path / "int.tif")
    # of colours Pillow knows none of this kind
    cv2.imwrite(str(tmp_path / "colours.tif"), np.dstack([ramp] * 3).astype(np.float32))
    for name in ("float.tif", "int.tif", "colours.tif"):
        said = "a TIFF of 32-bit numbers; save it with 8 bits"
        assert read_photo(str(tmp_path / name), "grey", PhotoLimits()) == said
    (tmp_path / "no.tif").write_bytes(b"II*\0" + bytes(40))
    assert read_photo(str(tmp_path / "no.tif"), "grey", PhotoLimits()) == "not an image"


def test_grey_is_rec_601_luma_for_jpeg_and_png(tmp_path):
    color = np.zeros((16, 16, 3), np.uint8)
    color[:] = (200, 100, 50)
    for name in ("a.png", "a.jpg"):
        Image.fromarray(color).save(tmp_path / name)
    faces = decode([row(tmp_path / "a.png"), row(tmp_path / "a.jpg")])
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    np.testing.assert_allclose(faces.image.mean((1, 2)), luma, atol=1)


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png"])
def test_exif_orientation_is_applied_or_ignored_and_boxes_lie_in_that_photo(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what is left becomes the top
    picture = np.zeros((20, 30), np.uint8)
    picture[:, :15] = 255
    Image.fromarray(picture).save(tmp_path / name, exif=exif, quality=95)
    rows = [row(tmp_path / name, (0, 0, 20, 15)), row(tmp_path / name, (0, 0, 15, 20))]
    for color in ("grey", "rgb"):
        upright = decode(rows, FaceFormat(10, color), PhotoLimits())
        # 20 wide and 30 high: the white half is its upper one
        assert upright.image[0].mean() > 240 and upright.box.tolist() == [[0, 0, 20, 15], [0, 0, 15, 20]]
        assert upright.image[1, :6].mean() > 240 and upright.image[1, 8:].mean() < 15
        stored = decode(rows, FaceFormat(10, color), PhotoLimits(exif="ignore"))
        assert stored.image[1].mean() > 240
        assert stored.image[0, :, :6].mean() > 240 and stored.image[0, :, 8:].mean() < 15


def test_fit_leaves_the_right_size_alone_and_converts_color():
    rng = np.random.default_rng(0)
    exact = rng.integers(0, 256, (10, 10), np.uint8)
    assert fit(exact, GREY10) is exact
    rgb = fit(exact, FaceFormat(10, "rgb"))
    np.testing.assert_array_equal(rgb, np.stack([exact] * 3, -1))
    pure = np.zeros((10, 10, 3), np.uint8)
    pure[..., 0] = 255
    np.testing.assert_array_equal(fit(pure, GREY10), np.full((10, 10), 76))  # 0.299 x 255 = 76.2


def test_fit_averages_when_shrinking_and_interpolates_when_enlarging():
    checker = np.indices((40, 40)).sum(0).astype(np.uint8) % 2 * 200
    np.testing.assert_array_equal(fit(checker, GREY10), np.full((10, 10), 100))
    # Each axis its own way: rows 0 and 40 in turn average to 20, a ramp in steps of 20 becomes one in steps of 10
    # (within 2: OpenCV's cubic kernel has a = -0.75, which bends a ramp a little; nearest would give 0 and 20).
    ramp = np.tile(np.arange(10) * 20, (40, 1)) + np.tile([[0], [40]], (20, 1))
    mixed = fit(ramp.astype(np.uint8), FaceFormat(size=20)).astype(int)
    np.testing.assert_array_equal(mixed, np.tile(mixed[0], (20, 1)))
    np.testing.assert_allclose(np.diff(mixed[0])[4:-4], 10, atol=2)
    assert abs(mixed[0].mean() - 110) < 2
    # Cubic overshoots at an edge, which nearest, linear and area do not.
    edge = np.full((5, 5), 50, np.uint8)
    edge[:, 3:] = 200
    enlarged = fit(edge, FaceFormat(size=20))
    assert enlarged.min() < 50 and enlarged.max() > 200


@pytest.mark.parametrize("path", ["../a.jpg", "a/../../b.jpg", "/etc/a.jpg", r"..\a.jpg", r"C:\a.jpg", "", "a/.."])
def test_path_that_leaves_is_refused(path):
    assert relative_path(path) is None


def test_path_inside_is_kept():
    assert relative_path("103/a..b.JPG") == "103/a..b.JPG"
