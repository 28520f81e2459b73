"""Darknet's .weights files: read and written byte for byte, in the program's order, or refused."""

import math
import struct
import subprocess

import numpy as np
import pytest
import torch

from fer.darknet.design.architectures import recipe
from fer.darknet.design.fit import fit
from fer.darknet.formats.cfg import render
from fer.darknet.formats.weights import Net, read_header, weights_bytes
from fer.darknet.torch_engine.network import DarknetNetwork, fuse
from fer.darknet.torch_engine.weights_io import load_weights, open_network, save_weights
from fer.errors import InputError
from tests.darknet.test_modules import net_of
from tests.darknet.test_network import narrow, trained_like


@pytest.fixture
def small():
    return trained_like(narrow(fit(recipe("classifier_small"), {"size": 32}, 7, 1000)))


@pytest.mark.parametrize(("version", "seen", "header"), [((0, 2, 5), 5_000_000_000, 20), ((0, 1, 0), 77, 16)])
def test_files_come_back_byte_for_byte(tmp_path, small, version, seen, header):
    # any bits that are finite numbers, the variances not below 0
    floats = np.random.default_rng(0).normal(0, 1, (weights_bytes(small.sections) - 20) // 4).astype("<f4")
    head = struct.pack("<3iQ" if header == 20 else "<3iI", *version, seen)
    (tmp_path / "a.weights").write_bytes(head + np.abs(floats).tobytes())
    assert load_weights(small, tmp_path / "a.weights") == 10
    save_weights(small, tmp_path / "b.weights", read_header(tmp_path / "a.weights").seen, version=version)
    assert (tmp_path / "b.weights").read_bytes() == (tmp_path / "a.weights").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.weights", "b.weights"]


def test_numbers_have_the_programs_order(tmp_path):
    text = "[convolutional]\nbatch_normalize=1\nfilters=2\nactivation=linear\n"
    net = net_of(2, 1, 3, text + "[connected]\nbatch_normalize=1\noutput=1\n[connected]\noutput=2\n")
    # convolution: biases, scales, means, variances, weights; connected: biases, weights, scales, means, variances
    (tmp_path / "a.weights").write_bytes(struct.pack("<3iQ27f", 0, 2, 0, 0, *range(26), 26))
    with pytest.raises(InputError, match="128 bytes, but the whole net has 124 bytes"):
        load_weights(net, tmp_path / "a.weights")
    (tmp_path / "a.weights").write_bytes(struct.pack("<3iQ26f", 0, 2, 0, 0, *range(26)))
    load_weights(net, tmp_path / "a.weights")
    first, second, third = (
        {key: tensor.flatten().tolist() for key, tensor in layer.stored().items()} for layer in net.layers
    )
    assert first == {
        "bias": [0, 1], "scale": [2, 3], "mean": [4, 5], "variance": [6, 7], "weight": [8, 9, 10, 11, 12, 13],
    }  # fmt: skip
    assert second == {"bias": [14], "weight": [15, 16, 17, 18], "scale": [19], "mean": [20], "variance": [21]}
    assert third == {"bias": [22, 23], "weight": [24, 25]}


@pytest.mark.darknet
def test_partial_is_the_programs(tmp_path, small):
    (tmp_path / "net.cfg").write_text(render(small.sections))
    save_weights(small, tmp_path / "all.weights", 64, version=(0, 2, 0))
    for n in (1, 3, 99):
        arguments = ["darknet", "partial", "net.cfg", "all.weights", "theirs", str(n)]
        subprocess.run(arguments, cwd=tmp_path, check=True, capture_output=True, timeout=60)
        save_weights(small, tmp_path / "ours", first=min(n, 10), version=(0, 2, 0))
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_starting_from_the_first_layers_of_another_net(tmp_path):
    theirs = trained_like(fit(narrow(recipe("v3_tiny")), {"size": 32}, 80, 1000))
    save_weights(theirs, tmp_path / "v3.weights", seen=64)
    ours = DarknetNetwork(narrow(fit(recipe("classifier_tiny"), {"size": 32}, 7, 1000)))
    untouched = ours.layers[12].linear.weight.clone()
    assert load_weights(ours, tmp_path / "v3.weights", 11, theirs.sections) == 11
    for i in range(0, 11, 2):
        assert torch.equal(ours.layers[i].linear.weight, theirs.layers[i].linear.weight)
        assert torch.equal(ours.layers[i].norm.running_var, theirs.layers[i].norm.running_var)
    assert torch.equal(ours.layers[12].linear.weight, untouched)
    # cut out first, as yolov4.conv.137 was: 11 layers, and the pooling after them needs no numbers
    save_weights(theirs, tmp_path / "v3.conv.11", first=11)
    again = DarknetNetwork(ours.sections)
    assert load_weights(again, tmp_path / "v3.conv.11") == 12
    assert torch.equal(again.layers[10].linear.weight, ours.layers[10].linear.weight)
    with pytest.raises(InputError, match="v3.conv.11: holds 12 layers, so its first 13 cannot be taken"):
        load_weights(again, tmp_path / "v3.conv.11", 13)
    with pytest.raises(InputError, match=r"v3.weights: layer 13 is \[convolutional\] of .* take its first 13 at most"):
        load_weights(ours, tmp_path / "v3.weights", None, theirs.sections)


def test_broken_weights_change_nothing(tmp_path, small):
    save_weights(small, tmp_path / "whole", 64)
    whole = (tmp_path / "whole").read_bytes()
    before = {key: value.clone() for key, value in small.state_dict().items()}
    size = f"{len(whole):,}"
    nan, infinite = struct.pack("<f", math.nan), struct.pack("<f", math.inf)
    variances = 20 + 4 * 4 * 3  # after layer 0's 4 biases, scales and means
    for bytes_, message in [
        (whole[:-1], f"{len(whole) - 1:,} bytes end inside layer 8, which ends at {size}; the whole net has {size}"),
        (whole[:100], f"100 bytes end inside layer 0, which ends at 516; the whole net has {size}"),
        (whole[:7], "7 bytes are no .weights file"),
        (b"", "0 bytes are no .weights file"),
        (whole + bytes(4), f"{len(whole) + 4:,} bytes, but the whole net has {size} bytes: these .* another cfg"),
        (whole[:20] + nan * ((len(whole) - 20) // 4), "4 of the 4 bias numbers of layer 0 are not finite"),
        (whole[:-4] + infinite, "1 of the 224 weight numbers of layer 8 are not finite"),
        (whole[:variances] + struct.pack("<f", -1) + whole[variances + 4 :], "layer 0 has a variance below 0"),
        (struct.pack("<3i", 1 << 20, 2, 5) + whole[12:], "is of version 1048576.2, which is not supported"),
    ]:
        (tmp_path / "a.weights").write_bytes(bytes_)
        with pytest.raises(InputError, match=f"a.weights: {message}") as error:
            load_weights(small, tmp_path / "a.weights")
        assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in small.state_dict().items())
    with pytest.raises(InputError, match="absent: cannot be read"):
        load_weights(small, tmp_path / "absent")
    with pytest.raises(InputError, match="a.weights/b.weights: not written, not a directory: choose"):
        save_weights(small, tmp_path / "a.weights" / "b.weights")
    with pytest.raises(InputError, match="the first 11 layers of 10 cannot be written"):
        save_weights(small, tmp_path / "a.weights", first=11)
    for refused in (save_weights, load_weights):
        with pytest.raises(InputError, match="a fused network has no .weights"):
            refused(fuse(small), tmp_path / "whole")


def test_open_a_trained_net(tmp_path, small):
    save_weights(small, tmp_path / "a.weights", 64)
    net = Net(tmp_path / "a.weights", tmp_path / "a.cfg", tuple("abcdefg"), small.sections, "classifier")
    opened, photos = open_network(net), torch.rand(2, 3, 32, 32)
    assert not opened.training and torch.equal(opened(photos), small(photos))
