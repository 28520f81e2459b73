"""The page on a prepared file: what it counts, that it is static and safe, and whose folders it touches."""

import json
import tracemalloc
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from fer.data.preparation.prepare import writing_skipped
from fer.data.source import SPLITS, FaceFormat, Skipped, empty_faces
from fer.data.storage.hdf5 import write_store
from fer.errors import InputError
from fer.evaluation.metrics import summarize
from fer.evaluation.report import save_report
from fer.inspection.contents import (
    balance_figure,
    contact_sheet,
    equal_faces,
    equal_faces_table,
    examine,
    faces_figure,
    mistakes_figure,
)
from fer.inspection.page import write_page
from tests.conftest import write_tiny

EVIL = '"><img src=x onerror=alert(1)><script>alert(2)</script>'


class Elements(HTMLParser):
    """All tags of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def of(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def write_rows(path, rows, face=None, class_names=("Happy", "Sad"), drawn=False, **columns):
    """Write a prepared file of rows (split, label, fill, path); the fill is a grey level or an array of pixels."""
    face = face or FaceFormat(size=8)
    faces = empty_faces(len(rows), face)
    for i, (split, label, fill, name) in enumerate(rows):
        faces.split[i], faces.label[i], faces.image[i] = SPLITS.index(split), label, fill
        faces.path[i] = name
    for name, values in columns.items():
        setattr(faces, name, np.array(values, getattr(faces, name).dtype))
    write_store(path, lambda: [faces], tuple(class_names), ("here",), face, drawn, {})
    return path


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)


@pytest.fixture
def rows(tmp_path):
    """One pair within train, one group over train and val with two labels, one over val and test, two flat faces."""
    return write_rows(
        tmp_path / "rows.h5",
        [
            ("train", 0, noise(1), "a"), ("train", 0, noise(1), "b"), ("train", 0, noise(2), "c"),
            ("train", 1, 7, "flat"), ("train", 1, noise(3), "d"), ("val", 1, noise(2), "e"), ("val", 0, noise(2), "f"),
            ("val", 1, noise(4), "g"), ("test", 1, noise(4), "h"), ("test", 0, 255, "white"),
        ],
    )  # fmt: skip


def test_equal_faces_are_those_counted_by_hand(rows):
    contents = examine(rows)
    groups = equal_faces(contents)
    # rows are counted split after split, so val starts at 5 and test at 8
    assert [group.tolist() for group in groups] == [[2, 5, 6], [7, 8], [0, 1]]
    assert equal_faces_table(contents, groups) == [
        ("train", 1, 2, 0), ("train + val", 1, 3, 1), ("val + test", 1, 2, 0), ("all", 3, 7, 1),
    ]  # fmt: skip
    assert np.flatnonzero(contents.flat).tolist() == [3, 9]
    assert contents.brightness[[3, 9]].tolist() == [7, 255]
    happy = np.mean([noise(1), noise(1), noise(2), noise(2), np.full((8, 8), 255)], axis=0).round()
    assert np.array_equal(contents.mean_faces[0], happy)


def test_a_flat_colour_is_found_and_a_coloured_pattern_is_not(tmp_path):
    red, pattern = np.broadcast_to([200, 10, 10], (8, 8, 3)), np.zeros((8, 8, 3), np.uint8)
    pattern[0, 0, 2] = 1
    rows = [("train", 0, red, "red"), ("train", 1, pattern, "pattern")]
    assert examine(write_rows(tmp_path / "rgb.h5", rows, FaceFormat(8, "rgb"))).flat.tolist() == [True, False]


def test_the_page_says_what_was_counted(rows, tmp_path, capsys):
    skipped = [Skipped("here", f"{i}.jpg", "zero bytes") for i in range(30)] + [Skipped("here", "x.jpg", "truncated")]
    with writing_skipped(tmp_path / "rows.h5.skipped.csv", skipped):
        pass
    page = write_page(rows)
    assert page == tmp_path / "rows-look" / "index.html"
    told = (
        "10 faces; 3 groups of equal faces (7 faces), 2 of them in several splits and 1 with different labels; 2 faces"
    )
    assert told in capsys.readouterr().out and told in page.read_text()
    text = Elements(page.read_text()).text
    assert "zero bytes30" in text and "truncated1" in text and "The first of 31 rows left out" in text
    assert "23.jpg" in text and "24.jpg" not in text
    assert "drawn" not in text.lower()


def test_a_drawn_files_page_says_so_on_top(tmp_path):
    file = write_rows(tmp_path / "a.h5", [("train", 0, noise(1), "a")], drawn=True, valence=[0.5], box=[[1, 2, 30, 40]])
    text = Elements(write_page(file).read_text()).text
    assert text.index("Drawn sample data, not photos of people.") < text.index("Class balance")
    assert "Not known: arousal" in text and "Not known: valence" not in text
    assert "train130.000.0030.0030.0030.0030.0030.00" in text  # box width
    assert "No two faces have the same pixels." in text and "No row was left out" in text


def test_the_page_is_static_and_can_be_read_aloud(rows):
    page = write_page(rows)
    elements = Elements(page.read_text())
    assert {tag for tag, _ in elements.tags} & {"script", "iframe", "link", "object", "form"} == set()
    for _, attributes in elements.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert "://" not in "".join(filter(None, attributes.values()))
    images = {image["src"] for image in elements.of("img")}
    assert images == {entry.name for entry in page.parent.iterdir()} - {"index.html"}
    assert all(image["alt"] and cv2.imread(str(page.parent / image["src"])) is not None for image in elements.of("img"))
    assert elements.of("html") == [{"lang": "en"}] and len(elements.of("h1")) == 1
    assert all(cell["scope"] in ("col", "row") for cell in elements.of("th"))
    assert len(elements.of("caption")) == len(elements.of("table")) == len(elements.of("thead"))
    anchors = {link["href"] for link in elements.of("a")} - images
    assert anchors == {f"#{section['id']}" for section in elements.of("section")} and len(anchors) == 9


def test_names_from_files_stay_text(tmp_path):
    line = f"new\nline \u202egnp.exe {EVIL}"
    rows = [
        ("train", 0, noise(1), EVIL),
        ("train", 1, noise(1), line),
        ("train", 1, 0, "../../up"),
        ("train", 0, 0, "ü"),
    ]
    file = write_rows(tmp_path / "a<b>&.h5", rows, class_names=(EVIL, "../$a$b"))
    with writing_skipped(tmp_path / "a<b>&.h5.skipped.csv", [Skipped(EVIL, line, EVIL)]):
        pass
    page = write_page(file)
    elements = Elements(page.read_text("utf-8"))
    assert elements.of("script") == [] and not [image for image in elements.of("img") if "onerror" in image]
    assert elements.text.count(EVIL) > 5 and "new\\u000aline \\u202egnp.exe" in elements.text and "ü" in elements.text
    assert "\u202e" not in elements.text and "a<b>&.h5" in elements.text
    names = sorted(entry.name for entry in page.parent.iterdir() if entry.name.startswith("sheet"))
    assert names == ["sheet-train-0-_img_src_x_onerror_alert_1_script_alert_.png", "sheet-train-1-_a_b.png"]


def test_an_earlier_page_is_replaced_and_nothing_else(rows, tmp_path):
    page = write_page(rows, tmp_path / "page")
    (page.parent / "sheet-train-0-Happy.png").unlink()
    assert write_page(rows, tmp_path / "page") == page and (page.parent / "sheet-train-0-Happy.png").is_file()
    (page.parent / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="look.py did not write mine.txt"):
        write_page(rows, tmp_path / "page")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    write_page(rows, foreign)  # an empty folder is taken
    (foreign / "index.html").write_text("<title>mine</title>")
    for taken in (foreign, foreign / "index.html", rows):
        with pytest.raises(InputError, match="look.py did not write"):
            write_page(rows, taken)
    with pytest.raises(InputError, match="below_a_file: not written, not a directory: choose another place"):
        write_page(rows, rows / "below_a_file")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["foreign", "page", "rows.h5"]


def test_files_that_are_not_ours(tmp_path):
    (tmp_path / "a.h5").write_text("no HDF5")
    for name, message in (("a.h5", "not a readable HDF5 file"), ("b.h5", "no such file")):
        with pytest.raises(InputError, match=message):
            write_page(tmp_path / name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[:, :, :3]


def test_a_small_face_is_shown_by_whole_pixels():
    face = noise(5)
    shown = pixels(faces_figure(np.stack([face, face]), [], 10, "two"))
    # 8 pixels grow twelvefold; a heading of one line is 29 pixels high, the edge 4 wide
    assert np.array_equal(
        shown[29 : 29 + 96, 4 : 4 + 96], np.kron(face, np.ones((12, 12), np.uint8))[:, :, None].repeat(3, 2)
    )
    assert np.array_equal(shown[29 : 29 + 96, 104 : 104 + 96], shown[29 : 29 + 96, 4 : 4 + 96])


def test_large_faces_shrink_and_colours_stay(tmp_path):
    face = np.broadcast_to(np.array([200, 100, 50], np.uint8), (224, 224, 3))
    shown = pixels(faces_figure(face[None], ["a\nb"], 10, "one"))
    assert shown[29:125, 4:100].reshape(-1, 3).tolist() == [[200, 100, 50]] * 96 * 96


def test_a_contact_sheet_is_seeded(tmp_path):
    file = write_tiny(tmp_path / "tiny.h5", {"train": 70, "test": 7}, class_names=("a", "b"))
    sheets = [pixels(contact_sheet(file, "train", 1, count=12, seed=seed)) for seed in (0, 0, 1)]
    assert np.array_equal(sheets[0], sheets[1]) and not np.array_equal(sheets[0], sheets[2])
    assert contact_sheet(file, "train", 1, count=12).texts == []
    assert [t.get_text() for t in contact_sheet(file, "train", 1, 12).axes[0].texts] == ["train, b: 12 of 35 faces"]
    assert [t.get_text() for t in contact_sheet(file, "test", 0).axes[0].texts] == ["test, a: 4 of 4 faces"]


def test_balance_is_drawn_for_each_split_and_class(rows):
    figure = balance_figure(examine(rows).info)
    assert [axes.get_title() for axes in figure.axes] == ["train: 5", "val: 3", "test: 2"]
    assert [[bar.get_width() for bar in axes.patches] for axes in figure.axes] == [[3, 2], [1, 2], [1, 1]]


def test_the_worst_mistakes_are_the_most_confident(rows, tmp_path):
    # val is e Sad, f Happy, g Sad; e and f are wrong, f the more certainly
    probabilities, labels, names = np.array([[0.7, 0.3], [0.1, 0.9], [0.2, 0.8]]), np.array([1, 0, 1]), ("Happy", "Sad")
    report = {"plain": summarize(probabilities, labels, names), "headline": "plain", "split": "val", "data": "rows"}
    report |= {"checkpoint": "x", "model": "x", "drawn": False, "notes": [], "file": str(rows)}
    save_report(tmp_path / "report", report, probabilities, labels, ["e", "f", "g"], ["here"] * 3, names)
    told = [text.get_text().replace("\n", " ") for text in mistakes_figure(tmp_path / "report").axes[0].texts]
    assert told == [
        "Happy said Sad 0.90",
        "Sad said Happy 0.70",
        "the 2 most confident wrong predictions on rows, val",
    ]
    other = write_rows(tmp_path / "other.h5", [("val", 0, 1, "z")])
    with pytest.raises(InputError, match="its val rows are not those of"):
        mistakes_figure(tmp_path / "report", file=other)
    (tmp_path / "report" / "report.json").write_text(json.dumps({"task": "detector"}))
    with pytest.raises(InputError, match="holds no report of a classifier"):
        mistakes_figure(tmp_path / "report")


def test_memory_stays_flat(tmp_path):
    """Two files of 32 and 96 MiB of pixels are measured in the same memory but for a few numbers a row."""
    peaks = []
    for blocks in (2, 6):
        faces = empty_faces(256, FaceFormat(size=256))
        faces.image[:] = np.arange(256, dtype=np.uint8)[:, None, None]
        faces.path = list(map(str, range(256)))
        file = tmp_path / "large.h5"
        write_store(file, lambda n=blocks, faces=faces: [faces] * n, ("a",), ("here",), FaceFormat(size=256), False, {})
        tracemalloc.start()
        examine(file)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 64 * 2**20 and peaks[1] < peaks[0] + 2**20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: give data=NAME, whose prepared file is shown, or file=FILE.h5, one of them"),
        (["data=sample", "file=a.h5"], "error: give data=NAME, whose prepared file is shown, or file=FILE.h5, one of"),
        (
            ["data=fer2013"],
            "error: data/fer2013-48-grey.h5: no such file; make it with `python prepare.py data=fer2013",
        ),
        (["file=a.h5"], "error: a.h5: no such file"),
        (["fil=a.h5"], "error: there is no key fil (did you mean file?); valid in look: "),
        (["file=a.h5", "seed=one"], "error: seed: "),
        (["file=a.h5", "seed=-1"], "error: seed=-1 is not between 0 and 4294967295"),
    ],
)
def test_mistakes_on_the_command_line_give_one_line(run, tmp_path, arguments, message):
    done = run("look.py", *arguments, cwd=tmp_path, code=2)
    assert done.stderr.startswith(message) and len(done.stderr.splitlines()) == 1


def test_the_command_writes_the_page(run, tmp_path, tiny):
    done = run("look.py", f"file={tiny}", "out=page", "seed=3", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == f"wrote {tmp_path}/page/index.html"
    assert "230 faces; 0 groups of equal faces" in done.stdout
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["page", "tiny.h5"]


def test_help_does_not_wait_for_the_pictures(process, tmp_path):
    done = process("look.py", "--help", cwd=tmp_path, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert "python look.py data=fer2013" in done.stdout and "Powered by Hydra" not in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported and not imported & {"torch", "matplotlib", "pandas", "cv2"}
