"""Weights files: headers, whole and broken ones, and what is found beside them."""

import shutil
import struct
import subprocess

import pytest

from fer.darknet.design.architectures import recipe
from fer.darknet.formats.cfg import parse, render
from fer.darknet.formats.run_folder import read_facts
from fer.darknet.formats.weights import (
    find_cfg,
    is_whole,
    newest_whole,
    open_net,
    read_header,
    weights_bytes,
    whole_layers,
)
from fer.errors import InputError

# 3 * 8 weights and 4 numbers a filter, 8 * 2 weights and a bias each: 8 * 7 + 2 * 9 = 74 floats
CFG = """[net]
width=32
height=32
channels=3
[convolutional]
batch_normalize=1
filters=8
activation=leaky
[maxpool]
stride=2
[convolutional]
filters=2
activation=linear
[avgpool]
[softmax]
"""
SECTIONS = parse(CFG)
WHOLE = 20 + 4 * 74


def write(path, size=WHOLE, seen=0, version=(0, 2, 0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((struct.pack("<3iQ", *version, seen) + bytes(size))[:size])
    return path


def test_headers_of_both_ages(tmp_path):
    header = read_header(write(tmp_path / "a.weights", seen=5_000_000_000, version=(0, 2, 5)))
    assert (header.major, header.minor, header.revision, header.seen, header.bytes) == (0, 2, 5, 5_000_000_000, 20)
    (tmp_path / "old.weights").write_bytes(struct.pack("<3iI", 0, 1, 0, 77) + bytes(4 * 74))
    header = read_header(tmp_path / "old.weights")
    assert (header.minor, header.seen, header.bytes) == (1, 77, 16)
    assert whole_layers(tmp_path / "old.weights", SECTIONS) == 5 and is_whole(tmp_path / "old.weights", SECTIONS)


def test_layers_that_a_file_holds(tmp_path):
    assert weights_bytes(SECTIONS) == WHOLE and weights_bytes(SECTIONS, 1) == 20 + 4 * 56
    # the pooling after the first layer needs no weights, so it is there as well
    assert whole_layers(write(tmp_path / "a.conv.1", 20 + 4 * 56), SECTIONS) == 2
    assert whole_layers(write(tmp_path / "a.weights"), SECTIONS) == 5
    assert is_whole(tmp_path / "a.weights", SECTIONS) and not is_whole(tmp_path / "a.conv.1", SECTIONS)
    assert not is_whole(tmp_path / "absent.weights", SECTIONS)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (10, "a.weights: 10 bytes are no .weights file"),
        (100, "a.weights: 100 bytes end inside layer 0, which ends at 244; the whole net has 316 bytes"),
        (300, "a.weights: 300 bytes end inside layer 2, which ends at 316; the whole net has 316 bytes"),
        (320, "a.weights: 320 bytes, but the whole net has 316 bytes: these weights belong to another cfg"),
    ],
)
def test_broken_and_foreign_files(tmp_path, size, message):
    with pytest.raises(InputError, match=message) as error:
        whole_layers(write(tmp_path / "a.weights", size), SECTIONS)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="absent.weights: cannot be read"):
        read_header(tmp_path / "absent.weights")


def test_newest_whole_of_both_dialects(tmp_path):
    assert newest_whole(tmp_path / "absent", "a", SECTIONS) is None and newest_whole(tmp_path, "a", SECTIONS) is None
    write(tmp_path / "a_1.weights", seen=100)
    assert newest_whole(tmp_path, "a", SECTIONS).name == "a_1.weights"
    write(tmp_path / "a.backup", seen=300)
    assert newest_whole(tmp_path, "a", SECTIONS).name == "a.backup"
    write(tmp_path / "a_2.weights", seen=200)
    write(tmp_path / "a_last.weights", seen=400)
    # saved last, but cut short; of another net; cut to start from; averaged
    write(tmp_path / "a_final.weights", WHOLE - 4, seen=999)
    write(tmp_path / "ab_final.weights", seen=999)
    write(tmp_path / "a.conv.1", seen=999)
    write(tmp_path / "a_ema.weights", seen=999)
    assert newest_whole(tmp_path, "a", SECTIONS).name == "a_last.weights"
    write(tmp_path / "a_final.weights", seen=500)
    assert newest_whole(tmp_path, "a", SECTIONS).name == "a_final.weights"
    write(tmp_path / "a.weights", seen=600)
    assert newest_whole(tmp_path, "a", SECTIONS).name == "a.weights"


def run_folder(folder, names="Neutral\nHappy\n"):
    weights = write(folder / "backup" / "a_final.weights")
    (folder / "a.cfg").write_text(CFG)
    (folder / "labels.txt").write_text(names)
    return weights


def test_open_a_run(tmp_path):
    weights = run_folder(tmp_path)
    net = open_net(weights)
    assert (net.weights, net.cfg, net.names, net.task) == (
        weights,
        tmp_path / "a.cfg",
        ("Neutral", "Happy"),
        "classifier",
    )
    assert net.sections == SECTIONS
    # beside the weights comes first
    shutil.copy(tmp_path / "a.cfg", weights.with_name("a.cfg"))
    weights.with_name("other.names").write_text("no\nyes\n")
    net = open_net(weights)
    assert net.cfg == weights.with_name("a.cfg") and net.names == ("no", "yes")
    (tmp_path / "given.names").write_text("x\ny\n")
    assert open_net(weights, tmp_path / "a.cfg", tmp_path / "given.names").names == ("x", "y")


def test_the_cfg_is_found_by_name(tmp_path):
    for name in ("v4.cfg", "v4_tiny.cfg", "dk.resume.cfg"):
        (tmp_path / name).write_text(CFG)
    for weights, cfg in [
        ("v4_tiny_last.weights", "v4_tiny.cfg"), ("v4_last.weights", "v4.cfg"), ("v4.conv.137", "v4.cfg"),
        ("dk_final.weights", "dk.resume.cfg"),
    ]:  # fmt: skip
        assert find_cfg(tmp_path / weights).name == cfg
    with pytest.raises(
        InputError, match="dk.resume.cfg, v4.cfg, v4_tiny.cfg in .* could belong to it; set darknet.cfg="
    ):
        find_cfg(tmp_path / "other.weights")
    with pytest.raises(InputError, match="no .cfg beside it or one folder up; set darknet.pretrained_cfg=FILE.cfg"):
        find_cfg(tmp_path / "x" / "y" / "other.weights", "darknet.pretrained_cfg")
    # the only one may have any name
    write(tmp_path / "one" / "other.weights")
    (tmp_path / "one" / "net.cfg").write_text(CFG)
    assert find_cfg(tmp_path / "one" / "other.weights").name == "net.cfg"


def test_byte_order_marks_are_no_part_of_a_cfg_or_a_name(tmp_path):
    weights = run_folder(tmp_path, names="Neutral\nHappy\n")
    for name in ("a.cfg", "labels.txt"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes())
    net = open_net(weights)
    assert net.names == ("Neutral", "Happy") and net.sections[0].kind == "net"


def test_open_net_refuses(tmp_path):
    weights = run_folder(tmp_path, names="Neutral\nHappy\nSad\n")
    with pytest.raises(InputError, match="labels.txt: 3 names, but .*a.cfg has 2 classes"):
        open_net(weights)
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(InputError, match="no .names or labels.txt beside it or one folder up; set darknet.names="):
        open_net(weights)
    with pytest.raises(InputError, match="absent.weights: no such file"):
        open_net(tmp_path / "absent.weights")
    with pytest.raises(InputError, match="darknet.cfg=.*absent.cfg: no such file"):
        open_net(weights, tmp_path / "absent.cfg")
    with pytest.raises(InputError, match="holds the first 2 of 5 layers of .*a.cfg, to start a training from only"):
        open_net(write(tmp_path / "a.conv.1", 20 + 4 * 56))


@pytest.mark.darknet
def test_the_programs_own_files(tmp_path):
    sections = recipe("v3_tiny")
    sections[0].options.update(batch="1", subdivisions="1")
    (tmp_path / "v3_tiny.cfg").write_text(render(sections))
    (tmp_path / "empty.weights").write_bytes(struct.pack("<3iQ", 0, 2, 0, 0))
    for target, n in (("v3_tiny.weights", 1000), ("v3_tiny.conv.11", 11)):
        subprocess.run(
            ["darknet", "partial", "v3_tiny.cfg", "empty.weights", target, str(n)],
            cwd=tmp_path, check=True, capture_output=True, timeout=60,
        )  # fmt: skip
    (tmp_path / "emotion.names").write_text("Neutral\nHappy\nSad\nSurprise\nFear\nDisgust\nAnger\n")
    net = open_net(tmp_path / "v3_tiny.weights")
    assert (net.task, net.names[-1]) == ("detector", "Anger") and is_whole(net.weights, sections)
    # layer 11 is a pooling
    assert whole_layers(tmp_path / "v3_tiny.conv.11", sections) == 12
    assert (tmp_path / "v3_tiny.conv.11").stat().st_size == weights_bytes(sections, 11)


@pytest.mark.parametrize("names", ["Happy\nHappy\n", "Happy\n\0\n"])
def test_names_that_are_twice_there_or_no_text_are_refused(tmp_path, names):
    weights = run_folder(tmp_path, names=names)
    with pytest.raises(InputError, match=r"labels.txt: '(Happy|\\x00)' is twice there or no text"):
        open_net(weights)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"drawn": 1}', b'{"folder": null}'])
def test_a_damaged_run_json_is_one_line(tmp_path, content):
    weights = run_folder(tmp_path)
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(InputError, match=r"run.json: is damaged, or of no run of `?.*train`?: take it away"):
        read_facts(weights)
