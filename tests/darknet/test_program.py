"""Which darknet program it is, and what it lacks; the tables are held against Debian's program."""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from fer.darknet.formats.cfg import parse
from fer.darknet.formats.dialects import DIALECTS
from fer.darknet.formats.option_table import known_options
from fer.darknet.program_engine.program import Program, command, find_program, note, partial_command, require_support
from fer.errors import InputError

#: Strings that the programs print or read, as DARKNET.md quotes them.
STRINGS = {
    "pjreddie": b"Not an option: %s\n\0-fullscreen\0isegmenter\0",
    "alexeyab": b" GPU isn't used \n\0Not an option: %s\n\0-mjpeg_port\0Usage: darknet detector calc_anchors data/"
    b"\0(next TOP%d calculation at %d iterations) ",
    "hank": b", time remaining=\0is unused or invalid: \0calcanchors\0",
}
NET = "[net]\nbatch=8\nsubdivisions=2\nwidth=64\nheight=64\nchannels=3\nmax_batches=9\n"
CONV = "[convolutional]\nfilters=24\nsize=1\nstride=1\nactivation=linear\n"
YOLO = "[yolo]\nmask=0,1\nanchors=8,8, 14,14\nclasses=7\nnum=2\n"


def program(dialect, gpu=False, opencv=False):
    return Program(Path(f"/opt/{dialect}/darknet"), dialect, gpu, opencv)


def make(folder, strings, mode=0o755):
    path = folder / "darknet"
    path.write_bytes(b"\x7fELF" + strings)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("dialect", STRINGS)
@pytest.mark.parametrize("libraries, gpu, opencv", [(b"", 0, 0), (b"libcublas.so.11\0libopencv_core.so.406", 1, 1)])
def test_dialect_is_read_from_the_file(tmp_path, dialect, libraries, gpu, opencv):
    path = make(tmp_path, STRINGS[dialect] + libraries)
    assert find_program(str(path)) == Program(path, dialect, bool(gpu), bool(opencv))


@pytest.mark.darknet
def test_debians_program():
    found = find_program(None)
    assert str(found.path) == shutil.which("darknet")
    assert (found.dialect, found.gpu, found.opencv) == ("pjreddie", False, True)
    assert "classifier" in found.tables.actions and not found.has_map and note(found) is None


def test_program_on_path(tmp_path, monkeypatch):
    path = make(tmp_path, STRINGS["hank"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program(None).path == find_program("darknet").path == path


def test_no_program_says_how_to_get_it(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(InputError, match="^no darknet program on PATH; `apt-get install darknet` gets .*binary="):
            find_program(None)
    for absent in (tmp_path / "none", tmp_path, make(tmp_path, STRINGS["hank"], mode=0o644)):
        with pytest.raises(InputError, match=f"^darknet.binary={absent}: no such program; "):
            find_program(str(absent))


@pytest.mark.parametrize("strings", [b"#!/bin/sh\n", STRINGS["hank"] + STRINGS["pjreddie"]])
def test_unknown_program(tmp_path, strings):
    with pytest.raises(InputError, match="is none of the darknet programs known here"):
        find_program(str(make(tmp_path, strings)))


def test_program_that_changes_is_read_again(tmp_path):
    path = make(tmp_path, STRINGS["hank"])
    assert find_program(str(path)).dialect == "hank"
    make(tmp_path, STRINGS["alexeyab"])
    os.utime(path, (1, 1))
    assert find_program(str(path)).dialect == "alexeyab"


def test_note_for_alexeyab_on_cpu_only():
    text = note(program("alexeyab"))
    assert "\n" not in text
    assert all(word in text for word in ("NaN", "biases of batch normalisation", "gradients"))
    assert note(program("alexeyab", gpu=True)) is note(program("pjreddie")) is note(program("hank")) is None


# ---- what is refused


def refusal(dialect, text, task="detector", flags=(), action="train", **linked):
    with pytest.raises(InputError) as error:
        require_support(program(dialect, **linked), parse(text), task, flags, action)
    assert "\n" not in str(error.value)
    return str(error.value)


def accepted(dialect, text, task="detector", flags=(), action="train", **linked):
    require_support(program(dialect, **linked), parse(text), task, flags, action)


def test_refusal_names_line_option_program_and_remedy():
    assert refusal("pjreddie", NET + CONV + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n" + YOLO) == (
        "[route] at line 13: groups=2 is not read by Debian's darknet of 2018 (/opt/pjreddie/darknet); use AlexeyAB's "
        "program, darknet.binary=PATH, or set groups=1"
    )


@pytest.mark.parametrize(
    "text, words",
    [
        (NET + "mosaic=1\n" + CONV, r"\[net\] at line 1: mosaic=1 is not read .* set mosaic=0"),
        (NET + "letter_box=0\n" + CONV, "letter_box=0 is not read"),
        (NET + "policy=sgdr\n" + CONV, "has no policy=sgdr"),
        (NET + CONV.replace("linear", "mish"), r"\[convolutional\] at line 8: .* has no activation=mish"),
        (NET + CONV + "dilation=2\n", "dilation=2 is not read"),
        (NET + CONV + "[maxpool]\nsize=2\nstride=2\nmaxpool_depth=1\n", r"\[maxpool\] at line 13: maxpool_depth=1"),
        (NET + CONV + CONV + "[shortcut]\nfrom=-2,-3\nactivation=linear\n", "adds one layer only"),
        (NET + CONV + "[reorg3d]\nstride=2\n", r"\[reorg3d\] at line 13: .* has no such layer"),
        (NET + CONV + YOLO + "scale_x_y=1.05\n", "scale_x_y=1.05 is not read"),
        (NET + CONV + YOLO + "iou_loss=ciou\n", "iou_loss=ciou is not read"),
        (NET + CONV + YOLO + "max_delta=5\n", "max_delta=5 is not read .* or take it out"),
        (NET + "learning_rat=0.1\n" + CONV, "learning_rat=0.1 is read by none .* correct or delete"),
    ],
)
def test_what_debians_lacks(text, words):
    assert re.search(words, refusal("pjreddie", text))


def test_what_makes_no_difference_is_accepted():
    neutral = "mosaic=0\nmax_chart_loss=20\nflip=1\n"
    heads = YOLO + "scale_x_y=1.0\niou_loss=mse\niou_normalizer=1.0\nbeta_nms=0.6\nnms_kind=default\n"
    accepted("pjreddie", NET + neutral + CONV + "dilation=1\n" + "[route]\nlayers=-1\ngroups=1\n" + CONV + heads)


def test_recipes_have_no_lines():
    layers = [replace(section, line=0) for section in parse(NET + CONV + YOLO + "new_coords=1\n")]
    with pytest.raises(InputError, match=r"^\[yolo\] \(layer 1\): new_coords=1 is not read"):
        require_support(program("pjreddie"), layers, "detector")


def test_options_of_training_do_not_matter_afterwards():
    text = NET + "mosaic=1\n" + CONV + YOLO + "iou_loss=ciou\n"
    accepted("pjreddie", text, action="valid")
    assert "new_coords=1" in refusal("pjreddie", text + "new_coords=1\n", action="valid")
    assert "opens a window" in refusal("pjreddie", text, action="test")
    assert "is not there" in refusal("pjreddie", text, action="map")


def test_alexeyab_mosaic_of_a_detector_needs_opencv():
    text = NET + "mosaic=1\n" + CONV + YOLO
    assert "OPENCV=1 (darknet.binary=PATH), or darknet.mosaic=0" in refusal("alexeyab", text)
    accepted("alexeyab", text, opencv=True)
    assert "cutmix=1 is for classifiers" in refusal("alexeyab", NET + "cutmix=1\n" + CONV + YOLO, opencv=True)
    accepted("alexeyab", text, action="valid")
    accepted("alexeyab", NET + "mosaic=1\ncutmix=1\n" + CONV + "[avgpool]\n[softmax]\n", "classifier")


def test_alexeyab_does_not_read_debians_own_options():
    assert "use Debian's program" in refusal("alexeyab", NET + "center=1\n" + CONV + YOLO)


def test_hank_has_no_classifier_and_ends_at_unknown_options():
    assert "has no `classifier` command since v3.1: use Debian's or AlexeyAB's" in refusal("hank", NET, "classifier")
    assert "max_crop=80 is not read by hank-ai's" in refusal("hank", NET + "max_crop=80\n" + CONV + YOLO)
    accepted("hank", NET + "mosaic=1\n" + CONV.replace("linear", "mish") + YOLO)
    # read off its source: it shows them always, and has no such layer
    assert "show_details=0 is not read by hank-ai's" in refusal("hank", NET + CONV + YOLO + "show_details=0\n")
    accepted("alexeyab", NET + CONV + YOLO + "show_details=0\n")
    assert "has no such layer" in refusal("hank", NET + CONV + "[batchnorm]\n" + CONV + YOLO)


@pytest.mark.parametrize(
    "dialect, task, flag, linked, words",
    [
        (
            "pjreddie",
            "detector",
            "map",
            {},
            "darknet.map: `detector train` of Debian's .* no -map; .* AlexeyAB's program",
        ),
        ("pjreddie", "classifier", "mjpeg_port", {}, "no -mjpeg_port"),
        ("pjreddie", "classifier", "dont_show", {}, "no -dont_show"),
        ("alexeyab", "classifier", "map", {}, "no -map; leave it out or use a program that has it"),
        ("alexeyab", "detector", "mjpeg_port", {}, "built without OpenCV"),
        ("alexeyab", "detector", "gpus", {"opencv": True}, "built without CUDA"),
        ("hank", "detector", "mjpeg_port", {}, "no -mjpeg_port"),
    ],
)
def test_flags_that_a_program_lacks(dialect, task, flag, linked, words):
    with pytest.raises(InputError, match=words):
        require_support(program(dialect, **linked), parse(NET + CONV), task, {flag})
    assert program("pjreddie").has_flag("detector", "clear") and not program("hank").has_flag("classifier", "clear")


# ---- argument lists


def test_commands():
    assert command(program("pjreddie"), "classifier", "train", "d.data", "c.cfg", flags={"clear"}) == (
        ["/opt/pjreddie/darknet", "classifier", "train", "d.data", "c.cfg", "-clear"]
    )
    alexeyab, flags = program("alexeyab", gpu=True, opencv=True), {"map", "dont_show"}
    arguments = command(
        alexeyab, "detector", "train", "d.data", "c.cfg", "w.weights", flags=flags, mjpeg_port=8090, gpus="0,1"
    )
    assert " ".join(arguments[3:]) == "d.data c.cfg w.weights -dont_show -gpus 0,1 -map -mjpeg_port 8090"
    assert partial_command(program("hank"), "c.cfg", "w", "c.conv.2", 2) == (
        ["/opt/hank/darknet", "partial", "c.cfg", "w", "c.conv.2", "2"]
    )
    assert command(program("hank"), "detector", "map", "d", "c", "w")[1:] == ["detector", "map", "d", "c", "w"]


def test_commands_that_are_not_there():
    with pytest.raises(InputError, match="`detector map` is not there; use AlexeyAB's"):
        command(program("pjreddie"), "detector", "map", "d", "c", "w")
    with pytest.raises(InputError, match="no -dont_show"):
        command(program("pjreddie"), "detector", "train", "d", "c", flags={"dont_show"})
    with pytest.raises(InputError, match="clear is for `detector train`"):
        command(program("alexeyab"), "detector", "valid", "d", "c", "w", flags={"clear"})


# ---- the tables against Debian's program

BODIES = {
    "convolutional": CONV,
    "maxpool": CONV + "[maxpool]\nsize=2\n",
    "softmax": CONV + "[avgpool]\n[softmax]\n",
    "cost": CONV + "[avgpool]\n[cost]\n",
    "route": CONV + "[route]\nlayers=-1\n",
    "shortcut": CONV + CONV + "[shortcut]\nfrom=-2\n",
    "upsample": CONV + "[upsample]\n",
    "dropout": CONV + "[dropout]\n",
    "yolo": CONV + YOLO,
    "region": CONV + "[region]\nnum=1\nclasses=19\ncoords=4\n",
    "detection": "[connected]\noutput=6\n[detection]\nside=1\nclasses=1\ncoords=4\nnum=1\n",
    "reorg": "[convolutional]\nfilters=4\n[reorg]\n",
    "local": "[local]\n",
    "batchnorm": "[batchnorm]\n",
    "crop": "[crop]\ncrop_width=8\ncrop_height=8\n",
}


@pytest.mark.darknet
@pytest.mark.parametrize("kind", BODIES)
def test_options_that_debians_reads_and_leaves_unused(tmp_path, kind):
    own = parse(NET + BODIES[kind])[-1].options
    # without a meaning here: files that would be opened, and a value that is no number
    left = {"tree", "map", "type", *own}
    read = {name for name, option in known_options(kind).items() if not option.later} - left
    newer = {name for name, option in known_options(kind).items() if option.later} - left
    cfg = tmp_path / "net.cfg"
    cfg.write_text(NET + BODIES[kind] + "".join(f"{option}=1\n" for option in sorted(read | newer)))
    done = subprocess.run(["darknet", "ops", cfg], capture_output=True, text=True, timeout=20)
    unused = {
        line.split("'")[1].split(" = ")[0]
        for line in (done.stdout + done.stderr).splitlines()
        if "Unused field" in line
    }
    assert unused == newer


@pytest.mark.darknet
def test_activations_and_layers_that_debians_knows(tmp_path):
    cfg = tmp_path / "net.cfg"
    new = DIALECTS["alexeyab"].known_values("convolutional", "activation")
    cfg.write_text(NET + "".join(CONV.replace("linear", name) for name in new) + "[reorg3d]\nstride=2\n")
    done = subprocess.run(["darknet", "ops", cfg], capture_output=True, text=True, timeout=20)
    unknown = set(re.findall("Couldn't find activation function (\\w+), going with ReLU", done.stderr))
    assert unknown == set(new) - DIALECTS["pjreddie"].known_values("convolutional", "activation")
    assert re.findall("Type not recognized: (.*)", done.stderr) == ["[reorg3d]"]
