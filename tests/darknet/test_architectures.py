"""The recipes against published sizes and the original table; fitting them to data; anchors."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from fer.darknet.design.anchors import kmeans_anchors
from fer.darknet.design.architectures import RECIPES, recipe
from fer.darknet.design.fit import check, count_epochs, count_iterations, fit
from fer.darknet.formats.cfg import layers, parse, task_of
from fer.darknet.formats.weights import weights_bytes
from fer.darknet.runs.setup import fit_to_data
from fer.errors import InputError
from tests.conftest import ROOT

NET = "[net]\nbatch=64\nsubdivisions=8\nwidth=64\nheight=64\nchannels=3\nmax_batches=500\n"
YOLO = (
    "[convolutional]\nfilters=255\nactivation=linear\n"
    "[yolo]\nclasses=80\nnum=6\nmask=0,1,2\nanchors=1,2,3,4,5,6,7,8,9,10,11,12\n"
)
SOFTMAX = "[convolutional]\nfilters=1000\nactivation=linear\n[avgpool]\n[softmax]\n"


def conf(name):
    return OmegaConf.to_container(OmegaConf.load(ROOT / f"conf/darknet/{name}.yaml"))


# published files: yolov3-tiny.weights, yolov4-tiny.weights, yolov4.weights (80 classes) and their .conv.N; for the
# classifier what AlexeyAB's program writes for csdarknet53-omega.cfg (1000 classes)
@pytest.mark.parametrize(
    ("name", "classes", "first", "size"),
    [
        ("v3_tiny", 80, None, 35_434_956),
        ("v4_tiny", 80, None, 24_251_276),
        ("v4_tiny", 80, 29, 19_789_716),
        ("v4", 80, None, 257_717_640),
        ("v4", 80, 137, 170_038_676),
        ("classifier_omega", 1000, None, 110_710_068),
        ("classifier_tiny", 1000, None, 29_293_940),
    ],
)
def test_weights_have_the_published_sizes(name, classes, first, size):
    assert weights_bytes(fit(recipe(name), {}, classes, 1), first) == size


# layers as DARKNET.md's inventory counts them in the programs' own files
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("classifier_tiny", {"convolutional": 8, "maxpool": 6, "avgpool": 1, "softmax": 1}),
        ("classifier_omega", {"convolutional": 73, "route": 10, "shortcut": 23, "avgpool": 1, "softmax": 1}),
        ("v3_tiny", {"convolutional": 13, "maxpool": 6, "route": 2, "upsample": 1, "yolo": 2}),
        ("v4_tiny", {"convolutional": 21, "route": 11, "maxpool": 3, "upsample": 1, "yolo": 2}),
        ("v4", {"convolutional": 110, "route": 21, "shortcut": 23, "maxpool": 3, "upsample": 2, "yolo": 3}),
    ],
)
def test_recipes_have_the_layers_of_their_nets(name, kinds):
    assert Counter(section.kind for section in recipe(name)[1:]) == kinds


def test_chains_share_their_first_layers():
    assert recipe("classifier_tiny")[1:12] == recipe("v3_tiny")[1:12]
    assert recipe("classifier_omega")[1:106] == recipe("v4")[1:106]
    assert recipe("classifier_v4_tiny_half")[1:28] == recipe("v4_tiny_half")[1:28]


def test_half_of_v4_tiny_is_that_net_with_half_of_its_channels_and_all_anchors():
    whole, half = recipe("v4_tiny"), recipe("v4_tiny_half")
    for theirs, ours in zip(whole, half, strict=True):
        wide = theirs.options.get("activation") == "leaky"
        twice = ours.options | ({"filters": str(2 * int(ours.options["filters"]))} if wide else {})
        assert theirs.options | {"mask": ""} == twice | {"mask": ""}
    assert [section.options["mask"] for section in half if section.kind == "yolo"] == ["3,4,5", "0,1,2"]


@pytest.mark.parametrize(("size", "grids"), [(256, [32, 16, 8]), (608, [76, 38, 19])])
def test_v4_looks_at_strides_8_16_and_32(size, grids):
    made = layers(fit(recipe("v4"), {"size": size}, 7, 1000))
    assert [layer.shape for layer in made if layer.kind == "yolo"] == [(grid, grid, 36) for grid in grids]


@pytest.mark.parametrize("name", RECIPES)
def test_the_files_under_conf_say_what_the_recipes_say(name):
    def numbers(options):
        return {k: [float(i) for i in v.split(",")] if v[0] in ".0123456789" else v for k, v in options.items()}

    fitted = fit(recipe(name), conf(name), 7, 283_901)
    check(fitted, 7)
    for ours, theirs in zip(fitted, recipe(name), strict=True):
        assert numbers(ours.options) == numbers(theirs.options)


@pytest.mark.parametrize("name", ["v3_tiny", "v4_tiny", "v4"])
def test_detectors_have_the_seeds_table(name):
    net = recipe(name)[0].options
    table = {"batch": 64, "learning_rate": 0.00261, "momentum": 0.9, "decay": 0.0005, "burn_in": 1000, "hue": 0.1}
    table |= {"saturation": 1.5, "exposure": 1.5, "max_batches": 400_000}
    assert {key: float(net[key]) for key in table} == table
    assert (net["policy"], net["steps"], net["scales"]) == ("steps", "320000,360000", ".1,.1")
    assert [float(section.options["jitter"]) for section in recipe(name) if section.kind == "yolo"] in (
        [0.3] * 2,
        [0.3] * 3,
    )


def test_epochs_and_iterations():
    # the original 400,000 iterations of 64 over 283,901 photos
    assert count_epochs(400_000, 64, 283_901) == pytest.approx(90.17, abs=0.005)
    assert count_iterations(90.17, 64, 283_901) == pytest.approx(400_000, abs=30)
    fitted = fit(recipe("v4_tiny"), conf("v4_tiny") | {"epochs": 10}, 7, 64_000)[0].options
    assert (fitted["max_batches"], fitted["steps"], fitted["scales"]) == ("10000", "8000,9000", ".1,.1")


def test_a_cfg_of_another_number_of_classes_is_adapted():
    detector = fit(parse(NET + YOLO + YOLO), {}, 7, 100)
    # (7 + 5) * 3
    assert [s.options.get("filters") or s.options["classes"] for s in detector[1:]] == ["36", "7", "36", "7"]
    check(detector, 7)
    classifier = fit(parse(NET + SOFTMAX), {}, 7, 100)
    assert classifier[1].options["filters"] == "7"
    check(classifier, 7)


def test_null_leaves_what_the_file_says():
    original = parse(NET + "steps=9,10,11\nscales=.5,.5,.5\npolicy=steps\n" + YOLO)
    fitted = fit(original, conf("custom"), 80, 100)
    assert fitted == original and fitted is not original


def test_values_of_the_config_reach_their_sections():
    anchors = [1, 2, 3.5, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    config = {"size": 96, "batch": 32, "learning_rate": 1e-5, "mosaic": 1, "anchors": anchors, "random": 1}
    fitted = fit(parse(NET + YOLO), config, 7, 100)
    net, yolo = fitted[0].options, fitted[2].options
    assert (net["width"], net["height"], net["batch"], net["mosaic"]) == ("96", "96", "32", "1")
    assert float(net["learning_rate"]) == 1e-5
    assert (yolo["anchors"], yolo["random"]) == ("1,2,3.5,4,5,6,7,8,9,10,11,12", "1")
    assert "mosaic" not in fit(recipe("v4_tiny"), {"mosaic": 0}, 7, 100)[0].options


def test_a_classifiers_crops_follow_its_size():
    # Darknet's classifiers are resized to 1/2 to 7/4 of their input before the crop: 128 to 448 at 256
    net = fit(recipe("classifier_omega"), {"size": 64}, 7, 1000)[0].options
    assert (net["min_crop"], net["max_crop"]) == ("32", "112")
    net = fit(recipe("classifier_omega"), {"size": 64, "min_crop": 64}, 7, 1000)[0].options
    assert (net["min_crop"], net["max_crop"]) == ("64", "112")


def test_another_policy_takes_its_options_along():
    steps = fit(recipe("classifier_tiny"), {"policy": "steps", "max_batches": 2000}, 7, 100)[0].options
    assert (steps["steps"], steps["scales"]) == ("1600,1800", ".1,.1")
    constant = fit(recipe("v3_tiny"), {"policy": "constant"}, 7, 100)[0].options
    assert not {"steps", "scales"} & constant.keys()


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("v4_tiny", {"size": 250}, "darknet.size=250 is no multiple of 32"),
        ("v4_tiny", {"batch": 64, "subdivisions": 7}, "darknet.batch=64 does not divide by darknet.subdivisions=7"),
        ("v4_tiny", {"batch": 1}, r"batch=1 is for testing; set darknet.batch"),
        ("v4_tiny", {"max_batches": 600}, "burn_in=1000 is not below max_batches=600: set darknet.burn_in=30"),
        ("v4_tiny", {"epochs": -1}, "darknet.epochs=-1 is not positive"),
        ("v4_tiny", {"steps": [1, 2, 3]}, "darknet.steps=1,2,3: 3 steps and 2 darknet.scales do not go together"),
        ("v4_tiny", {"steps": [2, 1]}, "darknet.steps=2,1 do not rise"),
        ("v4_tiny", {"policy": "exp"}, "darknet.policy=exp is not one of constant, poly, steps"),
        ("v4_tiny", {"cutmix": 1}, "darknet.cutmix=1 is nothing that a detector reads"),
        ("classifier_tiny", {"jitter": 0.3}, "darknet.jitter=0.3 is nothing that a classifier reads"),
        ("classifier_tiny", {"min_crop": 400}, "darknet.min_crop=400 is above darknet.max_crop=392"),
    ],
)  # fmt: skip
def test_values_that_do_not_go_together_are_refused(name, config, message):
    with pytest.raises(InputError, match=message) as error:
        fit(recipe(name), config, 7, 10_000)
    assert "\n" not in str(error.value)


FITTING = NET + YOLO.replace("80", "7").replace("255", "36")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NET + YOLO, r"a.cfg:11: \[yolo\]: classes=80, but the names or the net's first head are 7"),
        (
            FITTING.replace("36", "255"),
            r"a.cfg:8: \[convolutional\]: filters=255 before a.cfg:11: \[yolo\], which needs 36",
        ),
        (FITTING.replace("0,1,2", "0,1,6"), r"a.cfg:11: \[yolo\]: mask=0,1,6 is not within 0 to 5 of num=6"),
        (FITTING.replace("num=6", "num=2").replace("0,1,2", "0,1,4"), "of num=2: set num=6, as many as anchors= has"),
        (FITTING.replace("64\nch", "60\nch"), r"a.cfg:1: \[net\]: height=60 is no multiple of 32"),
        (FITTING + "counters_per_class=1,2\n", "counters_per_class= has 2 numbers, not 7: remove it"),
        (NET + SOFTMAX, r"a.cfg:12: \[softmax\]: gets 1x1x1000 numbers, but there are 7 names"),
    ],
)
def test_check_names_line_found_and_wanted(text, message):
    with pytest.raises(InputError, match=message):
        check(parse(text, "a.cfg"), 7)


def test_anchors_that_are_too_few_are_not_trained():
    # a comma that was forgotten makes two numbers one
    text = FITTING.replace("11,12", "1112")
    with pytest.raises(
        InputError, match=r"a.cfg:11: \[yolo\]: anchors= has 11 numbers, num=6 needs 12: is there a comma"
    ):
        fit(parse(text, "a.cfg"), {}, 7, 1000)


def test_unknown_recipe():
    with pytest.raises(InputError, match="darknet.name=v5 is not one of classifier_tiny, classifier_omega"):
        recipe("v5")


@pytest.mark.parametrize("name", RECIPES)
def test_names_tell_the_task(name):
    assert task_of(recipe(name)) == ("classifier" if name.startswith("classifier") else "detector")


def write_labels(folder, boxes):
    for number, (width, height) in enumerate(boxes):
        (folder / f"{number}.txt").write_text(f"0 0.5 0.5 {width} {height}\n")
    return sorted(folder.glob("*.txt"))


def test_anchors_are_the_clusters_of_the_boxes(tmp_path):
    # three sizes, ten boxes each, a few thousandths apart
    generator = np.random.default_rng(0)
    sizes = [(0.5, 0.25), (0.1, 0.2), (0.7, 0.8)]
    boxes = [(w + d, h - d) for w, h in sizes for d in generator.uniform(-0.002, 0.002, 10)]
    labels = write_labels(tmp_path, boxes)
    anchors, overlap = kmeans_anchors(labels, 256, 3)
    # by area: 0.1 x 0.2, 0.5 x 0.25, 0.7 x 0.8 of 256 pixels
    assert np.allclose(anchors, [(25.6, 51.2), (128, 64), (179.2, 204.8)], atol=0.5)
    assert 0.97 < overlap <= 1
    assert kmeans_anchors(labels, 256, 3) == (anchors, overlap)
    # of an input that is half as high
    flat, _ = kmeans_anchors(labels, (256, 128), 3)
    assert np.allclose(flat, [(25.6, 25.6), (128, 32), (179.2, 102.4)], atol=0.5)


def test_anchors_are_for_nets_with_heads_and_of_their_input(tmp_path):
    labels = write_labels(tmp_path, [(0.5, 0.25), (0.1, 0.2)])
    (tmp_path / "train.txt").write_text("".join(f"{label.with_suffix('.png')}\n" for label in labels))
    data = SimpleNamespace(names=("a", "b"), photos={"train": 64}, lists={"train": tmp_path / "train.txt"})
    options = {"anchors": "kmeans", "max_batches": 2000}
    with pytest.raises(InputError, match="anchors=kmeans: the net has no .yolo."):
        fit_to_data(recipe("classifier_small"), options, data)
    text = "[net]\nwidth=64\nheight=32\nchannels=3\nbatch=2\n[convolutional]\nfilters=14\nactivation=linear\n"
    fitted = fit_to_data(parse(f"{text}[yolo]\nclasses=2\nnum=2\nanchors=1,1,2,2\n"), options, data)
    # 0.1 x 0.2 and 0.5 x 0.25 of 64 x 32 pixels
    assert fitted[-1].options["anchors"] == "6.4,6.4,32,8"


def test_overlap_worked_by_hand(tmp_path):
    # one anchor for boxes of 32 x 32 and 64 x 64 pixels: 48 x 48, IoU 32^2 / 48^2 and 48^2 / 64^2
    anchors, overlap = kmeans_anchors(write_labels(tmp_path, [(0.5, 0.5), (1, 1)]), 64, 1)
    assert anchors == [(48, 48)] and overlap == pytest.approx((4 / 9 + 9 / 16) / 2)


def test_anchors_need_boxes(tmp_path):
    labels = write_labels(tmp_path, [(0.5, 0.5)] * 4 + [(0.25, 0.5)])
    with pytest.raises(InputError, match="2 different box sizes do not make 3 anchors"):
        kmeans_anchors(labels, 256, 3)
    with pytest.raises(InputError, match=r"absent.txt: no label file"):
        kmeans_anchors([tmp_path / "absent.txt"], 256, 1)
    (tmp_path / "broken.txt").write_text("0 0.5 0.5 0.5\n")
    with pytest.raises(InputError, match="broken.txt, line 1: .* is not `class cx cy width height`"):
        kmeans_anchors([tmp_path / "broken.txt"], 256, 1)
