"""Mini-batches of an exported folder: drawn alike by any number of workers, sized and labelled as the cfg says."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fer.darknet.formats.cfg import parse
from fer.darknet.formats.lists import Entry, write_lists
from fer.darknet.formats.photo_folder import labels_from_paths, read_list
from fer.darknet.torch_engine.training.batches import open_boxes, training_batches, training_loader
from fer.darknet.torch_engine.training.reading import PhotoError
from fer.errors import InputError

NAMES = ("rot", "gruen", "blau")
NET = "[net]\nbatch=8\nsubdivisions=2\nwidth=32\nheight=32\nchannels=3\nmax_batches=40\n"
CLASSIFIER = NET + "min_crop=32\nmax_crop=40\n{}[convolutional]\nfilters=3\n[avgpool]\n[softmax]\n"
DETECTOR = NET + (
    "{}[convolutional]\nfilters=8\nsize=1\nactivation=linear\n"
    "[yolo]\nmask=0\nanchors=8,8\nclasses=3\nnum=1\njitter=0.2\n{}"
)


@pytest.fixture
def photos(tmp_path):
    """Six photos of one colour, two a class, each with as many boxes of its class as its number."""
    paths = []
    for number in range(6):
        path = tmp_path / f"{number}_{NAMES[number % 3]}.png"
        image = np.zeros((40, 50, 3), np.uint8)
        image[..., 2 - number % 3] = 250 - number  # OpenCV writes BGR
        assert cv2.imwrite(str(path), image)
        rows = [f"{number % 3} {0.2 + 0.1 * i:.6f} 0.500000 0.200000 0.400000\n" for i in range(number)]
        path.with_suffix(".txt").write_text("".join(rows))
        paths.append(str(path))
    return paths


def classifier(photos, options="", seed=0, **more):
    return training_batches(parse(CLASSIFIER.format(options)), photos, NAMES, seed, **more)


def detector(photos, options="", head="", seed=0, **more):
    return training_batches(parse(DETECTOR.format(options, head)), photos, NAMES, seed, **more)


def same(first, second):
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_classifiers_labels_are_those_of_the_paths(photos):
    batches = classifier(photos)
    assert len(batches) == 80
    counts = np.zeros(3)
    for number in range(40):
        images, labels = batches[number]
        assert images.dtype == torch.uint8 and images.shape == (4, 3, 32, 32) and labels.dtype == torch.int64
        # the colour of the middle tells the class
        assert images[:, :, 16, 16].argmax(1).tolist() == labels.tolist()
        counts += np.bincount(labels, minlength=3)
    # 160 draws with replacement, a third each, three standard deviations
    assert (np.abs(counts - 160 / 3) < 18).all()


@pytest.mark.parametrize("option, most", [("cutmix=1\n", 2), ("mosaic=1\n", 4), ("mosaic=1\ncutmix=1\n", 4)])
def test_soft_targets_are_the_shares_of_the_colours(photos, option, most):
    batches = classifier(photos, option)
    mixed = []
    for number in range(60):
        images, shares = batches[number]
        assert shares.dtype == torch.float32 and shares.shape == (4, 3)
        torch.testing.assert_close(shares.sum(1), torch.ones(4))
        seen = (images > 120).float().mean((2, 3))
        # rotated by nothing and at least as large as the net, so each pixel is of a photo
        torch.testing.assert_close(seen, shares, atol=1e-6, rtol=0)
        mixed += [len(torch.unique(image.flatten(1), dim=1)[0]) > 1 for image in images]
    # every second, less those of photos that are the same
    assert 0.3 < np.mean(mixed) < 0.52
    assert batches.mosaic == ("mosaic" in option)


def test_a_detectors_truths_are_padded_with_class_minus_one(photos):
    for number in range(20):
        images, truths = detector(photos)[number]
        assert images.shape == (4, 3, 32, 32) and truths.dtype == torch.float32 and truths.shape[2] == 5
        real = truths[..., 0] >= 0
        assert real.sum(1).max() == truths.shape[1]
        for image, rows, taken in zip(images, truths, real, strict=True):
            assert not taken.any() or taken.nonzero().max() + 1 == taken.sum()  # padding comes last
            assert (rows[~taken] == torch.tensor([-1.0, 0, 0, 0, 0])).all()
            colour = image.float().mean((1, 2)).argmax()
            assert (rows[taken, 0] == colour).all() and (rows[taken, 1:] > 0).all()
            low, high = rows[taken, 1:3] - rows[taken, 3:] / 2, rows[taken, 1:3] + rows[taken, 3:] / 2
            assert (low > -1e-6).all() and (high < 1 + 1e-6).all()
    _, truths = detector([photos[0]])[0]  # a photo without a face
    assert truths.shape == (4, 0, 5)
    _, truths = detector([photos[5]], head="max=3\n")[0]
    assert truths.shape[1] == 3


@pytest.mark.parametrize("make", [classifier, detector])
def test_an_item_is_decided_by_seed_iteration_and_index_alone(photos, make):
    batches, again = make(photos, "hue=0.1\nmosaic=1\n"), make(photos, "hue=0.1\nmosaic=1\n")
    there = [batches[number] for number in range(8)]
    assert all(same(again[number], there[number]) for number in (7, 3, 0))
    assert not same(make(photos, "hue=0.1\nmosaic=1\n", seed=1)[3][:1], there[3][:1])
    assert not any(same(there[number][:1], there[0][:1]) for number in range(1, 8))
    # the same pictures, however they are divided
    halves = [make(photos, "hue=0.1\nmosaic=1\n", rank=rank, ranks=2)[3] for rank in (0, 1)]
    torch.testing.assert_close(torch.cat([half[0] for half in halves]), there[3][0], atol=0, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_and_resuming_change_nothing(photos, method):
    # OpenCV's threads are there before the workers
    cv2.setNumThreads(2)
    cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (1000, 1000))
    batches = detector(photos, "hue=0.1\nmosaic=1\n", "random=1\n")
    batches.iterations = 6
    alone = list(training_loader(batches))
    assert len(alone) == 12
    for workers in (1, 2):
        loader = training_loader(batches, iteration=2, workers=workers, multiprocessing_context=method)
        assert all(same(one, other) for one, other in zip(loader, alone[4:], strict=True))


def test_random_changes_the_size_every_ten_iterations(photos):
    assert {detector(photos).size_at(i) for i in range(40)} == {(32, 32)}
    batches = detector(photos, head="random=1\n")
    batches.size, batches.iterations = (416, 416), 5000
    sizes = [batches.size_at(i) for i in range(5000)]
    assert all(sizes[i] == sizes[i - i % 10] for i in range(5000))
    # AlexeyAB's at 416: round(416 * 1.4 / 32 + 1) = 19 at most, round(416 / 1.4 / 32 + 1) = 10 at least
    assert {size[0] for size in sizes} == set(range(320, 609, 32)) and all(w == h for w, h in sizes)
    assert sizes[0] == sizes[4910] == (608, 608) and len(set(sizes[4910:])) == 1
    # C's round takes halves up: 1.5 * 416 / 32 + 1 = 20.5
    batches.random = 1.5
    assert batches.size_at(0) == (21 * 32, 21 * 32)
    # factors under 1 that the next multiple but one would make larger keep the net's own size
    assert detector(photos, head="random=1\n")[0][0].shape[2:] == (64, 64)
    debian = detector(photos, head="random=1\n", dialect="pjreddie")
    debian.iterations = 5000
    sizes = [debian.size_at(i) for i in range(5000)]
    assert {size[0] for size in sizes} == set(range(320, 609, 32))
    assert set(sizes[4810:]) == {(608, 608)}


def complaint(loader):
    """The message of the first batch's error; the error itself would keep the workers until garbage is collected."""
    try:
        next(iter(loader))
    except PhotoError as error:
        return str(error)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_photo_that_cannot_be_read_ends_the_run_in_one_line(photos, tmp_path, workers):
    gone = str(tmp_path / "gone_rot.png")
    remedy = "make the Darknet folder anew with prepare.py, or take it off the list"
    assert complaint(training_loader(classifier([gone]), workers=workers)) == f"{gone}: missing file; {remedy}"
    beside = tmp_path / "0_rot.txt"
    beside.write_text("3 0.5 0.5 0.1 0.1\n")
    said = complaint(training_loader(detector(photos[:1]), workers=workers))
    assert said.startswith(f"{beside}, line 1: ") and "\n" not in said


@pytest.mark.parametrize(
    "options, head, message",
    [
        ("blur=1\n", "", "blur=1 is not supported with darknet.engine=torch"),
        ("cutmix=1\n", "", "cutmix=1 is for classifiers: set cutmix=0"),
        ("mosaic=1\nletter_box=1\n", "", "mosaic=1 and letter_box=1 do not go together"),
        ("saturation=0\n", "", "saturation=0 is not positive"),
        ("hue=x\n", "", "hue=x is no list of numbers"),
        ("", "resize=-1\n", "resize=-1 is not positive"),
    ],
)
def test_options_that_are_wrong_are_named(photos, options, head, message):
    with pytest.raises(InputError, match=message) as caught:
        detector(photos, options, head)
    assert "\n" not in str(caught.value)


def test_other_mistakes_are_named(photos, tmp_path):
    with pytest.raises(InputError, match="batch=8 cannot be divided by subdivisions=2 times 3 devices"):
        classifier(photos, ranks=3)
    with pytest.raises(InputError, match="mosaic=1 and cutmix=1 are AlexeyAB's"):
        classifier(photos, "mosaic=1\n", dialect="pjreddie")
    with pytest.raises(InputError, match="rot/1_blau.png: has not one of the classes in its path, but rot, blau"):
        labels_from_paths(["rot/1_blau.png"], NAMES)
    with pytest.raises(InputError, match="but none"):
        labels_from_paths(["1.png"], NAMES)
    with pytest.raises(InputError, match="no.list: No such file or directory; make the Darknet folder anew"):
        read_list(tmp_path / "no.list")
    (tmp_path / "empty.list").write_text("\n")
    with pytest.raises(InputError, match="empty.list: lists no photo"):
        read_list(tmp_path / "empty.list")


def test_an_exported_list_is_read_back_whatever_its_bytes(tmp_path):
    files = ["photos/000/0000000_rot.png", "photos/000/0000001_blau.png"]
    entries = [Entry(file, "here", file, ("train",), [0]) for file in files]
    folder = os.fsdecode(b"/data/caf\xe9")  # a name that is no UTF-8
    assert write_lists(tmp_path, folder, "classifier", NAMES, entries) == {"train": 2}
    listed = read_list(tmp_path / "train.list")
    assert listed == [Path(folder, file) for file in files] and labels_from_paths(listed, NAMES).tolist() == [0, 2]
    with pytest.raises(PhotoError, match="png: missing file; "):
        classifier(listed)[0]
    # a byte order mark, as editors write it
    (tmp_path / "marked.list").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "train.list").read_bytes())
    assert read_list(tmp_path / "marked.list") == listed


def test_labels_come_as_they_are_written(photos):
    rows = [[1, 0.2 + 0.1 * i, 0.5, 0.2, 0.4] for i in range(4)]
    np.testing.assert_allclose(open_boxes(photos[4], 3), rows, atol=1e-12)
    assert open_boxes(photos[0], 3).shape == (0, 5)


def test_random_sizes_of_a_net_with_larger_cells_are_refused(photos):
    text = DETECTOR.replace("size=1\n", "size=1\nstride=64\n")
    with pytest.raises(InputError, match=r"\[yolo\]: random= changes .* no multiple of 64, .*: set resize_step=64 of"):
        training_batches(parse(text.format("", "random=1\n"), "a.cfg"), photos, NAMES, 0)
    training_batches(parse(text.format("resize_step=64\n", "random=1\n")), photos, NAMES, 0)
