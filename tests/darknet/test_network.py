"""Networks made from a .cfg against OpenCV and Debian's program, and cfgs with slips of the hand."""

import re
import struct
import subprocess
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fer.darknet.design.architectures import RECIPES, recipe
from fer.darknet.design.fit import fit
from fer.darknet.formats.cfg import Section, layers, parse, render
from fer.darknet.formats.weights import Net, read_header
from fer.darknet.program_engine.program import find_program
from fer.darknet.program_engine.scores import classify, detect
from fer.darknet.torch_engine.network import DarknetNetwork, fuse, summary
from fer.darknet.torch_engine.weighted import BatchNorm
from fer.darknet.torch_engine.weights_io import load_weights, save_weights
from fer.errors import InputError
from tests.darknet.test_modules import both_ways

DEBIANS_CFGS = Path("/usr/share/darknet/cfg")


def narrow(sections, by=4):
    """The same net with a fourth of the filters but where they are those of a head."""
    made = []
    for section, after in zip(sections, [*sections[1:], None], strict=True):
        filters = int(section.options.get("filters", 1))
        if filters % by == 0 and after.kind not in ("yolo", "softmax"):
            section = Section("convolutional", section.options | {"filters": str(filters // by)})
        made.append(section)
    return made


def trained_like(sections, seed=0):
    """A net with batch statistics as training leaves them: those of random photos, each a little off."""
    torch.manual_seed(seed)
    net = DarknetNetwork(sections)
    norms = [module for module in net.modules() if isinstance(module, BatchNorm)]
    width, height, channels = net.size
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.3)
            norm.momentum = 1.0
        net.train()(torch.rand(16, channels, height, width))
        for norm in norms:
            norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.8, 1.25))
            norm.momentum = 0.01
    return net.eval().requires_grad_(False)


def divide_by(net, deviation):
    """Normalise by another program's deviation of a variance; ours is AlexeyAB's, sqrt(variance + 0.00001)."""
    for norm in net.modules():
        if isinstance(norm, BatchNorm):
            norm.running_var.copy_(deviation(norm.running_var) ** 2)
            norm.eps = 0


def opencvs(variance):
    return (variance + 1e-6).sqrt()


def debians(variance):
    return variance.sqrt() + 1e-6


def raw_heads(net, photos):
    net.training = True  # of the net only: its batch statistics stay as they are
    try:
        return net(photos)
    finally:
        net.training = False


def in_opencv(folder, net):
    (folder / "net.cfg").write_text(render(net.sections))
    save_weights(net, folder / "net.weights")
    other = cv2.dnn.readNetFromDarknet(str(folder / "net.cfg"), str(folder / "net.weights"))
    other.enableWinograd(False)  # which is faster and rounds more
    return other


# raw numbers of up to 2 (tiny) and 8 (v4)
@pytest.mark.parametrize(("name", "tolerance"), [("v3_tiny", 5e-5), ("v4_tiny", 5e-5), ("v4", 3e-3)])
def test_detectors_are_opencvs(tmp_path, name, tolerance):
    net = trained_like(narrow(fit(recipe(name), {"size": 64}, 7, 1000)))
    _compare_detector(tmp_path, net, tolerance)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("v3_tiny", 5e-5), ("v4_tiny", 5e-5), pytest.param("v4", 3e-3, marks=pytest.mark.slow)],
)
def test_whole_detectors_are_opencvs(tmp_path, name, tolerance):
    _compare_detector(tmp_path, trained_like(fit(recipe(name), {"size": 96}, 7, 1000)), tolerance)


def _compare_detector(folder, net, tolerance):
    other = in_opencv(folder, net)
    divide_by(net, opencvs)
    photos = torch.rand(1, *net.size[::-1])
    other.setInput(photos.numpy())
    outputs = other.forward([f"conv_{i - 1}" for i in net.heads] + [f"yolo_{i}" for i in net.heads])
    raw, rows = outputs[: len(net.heads)], outputs[len(net.heads) :]
    for each in both_ways(net):
        for ours, theirs in zip(raw_heads(each, photos), raw, strict=True):
            assert np.abs(ours.numpy() - theirs).max() < tolerance
    # the decoding alone, of the same numbers; OpenCV multiplies by the objectness and leaves out what is under 0.2
    for head, theirs, row in zip(net.heads, raw, rows, strict=True):
        boxes = net.layers[head].decode(torch.from_numpy(theirs), *net.size[:2])[0].numpy()
        assert boxes[:, :5] == pytest.approx(row[:, :5], rel=1e-5, abs=1e-6)
        sure = row[:, 5:] > 0
        assert sure.any() and (boxes[:, 5:] * boxes[:, 4:5])[sure] == pytest.approx(row[:, 5:][sure], abs=1e-6)


@pytest.mark.parametrize("name", ["classifier_tiny", "classifier_small", "classifier_omega"])
def test_classifiers_are_opencvs(tmp_path, name):
    net = trained_like(narrow(fit(recipe(name), {"size": 64}, 7, 1000)))
    other = in_opencv(tmp_path, net)
    divide_by(net, opencvs)
    photos = torch.rand(1, 3, 64, 64)
    other.setInput(photos.numpy())
    for each in both_ways(net):
        assert each(photos)[0].numpy() == pytest.approx(other.forward().ravel(), abs=1e-6)


def written_for_debian(folder, net, number):
    """Files of the net and of photos of noise that the program need neither resize nor crop."""
    generator = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(number)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (*net.size[:2], 3)).astype(np.uint8)).save(path)
    (folder / "net.cfg").write_text(render(net.sections))
    save_weights(net, folder / "net.weights")
    names = tuple(f"class{i}" for i in range(net.classes))
    task = "detector" if net.heads else "classifier"
    return paths, Net(folder / "net.weights", folder / "net.cfg", names, net.sections, task)


def read_photos(paths):
    return torch.stack([torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255 for path in paths])


@pytest.mark.darknet
def test_boxes_are_debians(tmp_path):
    net = trained_like(narrow(fit(recipe("v3_tiny"), {"size": 64}, 7, 1000)))
    photos, described = written_for_debian(tmp_path, net, 4)
    found = detect(find_program("darknet"), described, described.names, photos, 0.05, tmp_path / "work")
    divide_by(net, debians)
    rows = net(read_photos(photos))
    low, high = ((rows[..., :2] + side * rows[..., 2:4] / 2).clamp(0, 1) * 64 for side in (-1, 1))
    high[high > 63] = 64  # the program counts pixels from 1 and clips to 64
    boxes = torch.cat([low, high - low, rows[..., 5:] * rows[..., 4:5]], dim=-1)
    for ours, faces in zip(boxes, found, strict=True):
        assert len(faces) >= 3
        # the program leaves out what overlaps, class by class: each that it has must be one of ours
        for label, confidence, box in faces:
            same = ours[:, [0, 1, 2, 3, 4 + label]] - torch.tensor([*box, confidence])
            assert same.abs().amax(1).min() < 1e-3


# What no recipe has: every rule of shapes that Debian's program knows. The strided shortcut adds every second row and
# column of 16 x 16 x 6 to 4 of 8 x 8 x 4, the second puts 8 x 8 x 4 on every second of 16 x 16 x 6.
ODD = """[net]
batch=1
width=16
height=16
channels=3
[convolutional]
batch_normalize=1
filters=6
size=3
pad=1
activation=logistic
[convolutional]
filters=4
size=5
stride=2
padding=2
groups=2
activation=relu
[shortcut]
from=0
activation=leaky
[upsample]
stride=2
[convolutional]
filters=6
size=1
activation=linear
[shortcut]
from=2
activation=linear
[maxpool]
size=3
stride=2
padding=1
[maxpool]
size=4
stride=1
[route]
layers=-1,-2
[dropout]
probability=.5
[connected]
output=9
batch_normalize=1
activation=leaky
[connected]
output=5
activation=linear
[softmax]
temperature=2
[cost]
type=sse
"""


@pytest.mark.darknet
@pytest.mark.parametrize("name", ["classifier_tiny", "classifier_small", "odd"])
def test_classifiers_are_debians(tmp_path, name):
    sections = parse(ODD) if name == "odd" else narrow(fit(recipe(name), {"size": 64}, 7, 1000))
    assert _compare_classifier(tmp_path, trained_like(sections)).std() > 0.01


def _compare_classifier(folder, net):
    photos, described = written_for_debian(folder, net, 6)
    theirs = classify(find_program("darknet"), described, described.names, photos, folder / "work")
    divide_by(net, debians)
    ours = net(read_photos(photos))
    # the program prints six digits
    assert ours.numpy() == pytest.approx(theirs, abs=1e-6 + 5e-7)
    return theirs


def cfg_of_debian(name):
    """A cfg that the package ships, a quarter as wide, for 64 x 64."""
    sections = narrow(parse((DEBIANS_CFGS / f"{name}.cfg").read_text(), name))
    sections[0].options.update(width="64", height="64", batch="1", subdivisions="1")
    return sections


@pytest.mark.darknet
@pytest.mark.parametrize("name", ["darknet19", "darknet53", "resnet18", "resnext50"])
def test_debians_own_classifiers(tmp_path, name):
    _compare_classifier(tmp_path, trained_like(cfg_of_debian(name)))


@pytest.mark.darknet
@pytest.mark.parametrize("name", ["yolov3", "yolov3-spp"])
def test_debians_own_detectors(tmp_path, name):
    _compare_detector(tmp_path, trained_like(cfg_of_debian(name)), 2e-4)


@pytest.mark.darknet
def test_batch_statistics_are_debians(tmp_path):
    """One iteration that learns nothing, on photos that no flip changes: only the rolling numbers move."""
    text = (
        "[net]\nbatch=2\nwidth=4\nheight=4\nchannels=3\nmin_crop=4\nmax_crop=4\nlearning_rate=0\nmomentum=0\n"
        "decay=0\nmax_batches=1\npolicy=constant\n"
        "[convolutional]\nbatch_normalize=1\nfilters=5\nsize=3\npad=1\nactivation=leaky\n"
        "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=4\nactivation=relu\n"
        "[convolutional]\nfilters=2\nsize=1\nactivation=linear\n[softmax]\n"
    )
    net = trained_like(parse(text))
    half = np.random.default_rng(0).integers(0, 256, (4, 2, 3)).astype(np.uint8)
    photos = [tmp_path / f"{name}.png" for name in ("one", "two")]
    for photo, part in zip(photos, (half, 255 - half), strict=True):
        Image.fromarray(np.concatenate([part, part[:, ::-1]], axis=1)).save(photo)
    (tmp_path / "all.list").write_text("".join(f"{photo}\n" for photo in photos))
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    (tmp_path / "a.data").write_text("classes=2\ntrain=all.list\nvalid=all.list\nlabels=labels.txt\nbackup=.\n")
    (tmp_path / "net.cfg").write_text(text)
    save_weights(net, tmp_path / "start.weights")
    command = ["darknet", "classifier", "train", "a.data", "net.cfg", "start.weights"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert read_header(tmp_path / "net.weights").seen == 2
    theirs = DarknetNetwork(net.sections)
    load_weights(theirs, tmp_path / "net.weights")
    # the program draws with replacement: one of the three batches that there are
    differences = []
    for drawn in ((0, 0), (0, 1), (1, 1)):
        ours = deepcopy(net).train()
        ours(read_photos([photos[i] for i in drawn]))
        pairs = zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True)
        differences.append(max((one - two).abs().max().item() for (key, one), two in pairs if "batches" not in key))
    assert min(differences) < 5e-6 and max(differences) > 1e-4


@pytest.mark.parametrize("name", RECIPES)
def test_fused_networks_say_the_same(name):
    net = trained_like(narrow(fit(recipe(name), {"size": 64}, 7, 1000)))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    fused, photos = fuse(net), torch.rand(2, 3, 64, 64)
    assert not any(isinstance(module, BatchNorm) for module in fused.modules())
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    torch.testing.assert_close(fused(photos), net(photos), rtol=2e-3, atol=1e-4)
    exact = deepcopy(net).double()
    torch.testing.assert_close(fuse(exact)(photos.double()), exact(photos.double()), rtol=1e-6, atol=1e-9)
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_gradients_reach_every_weight():
    torch.manual_seed(0)
    net = DarknetNetwork(narrow(fit(recipe("v4_tiny"), {"size": 32}, 7, 1000)))
    sum(raw.square().mean() for raw in net(torch.rand(4, 3, 32, 32))).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


@pytest.mark.parametrize("name", ["v3_tiny", "v4_tiny", "classifier_omega"])
def test_gradients_of_branched_nets_are_float64_autograds(name):
    torch.manual_seed(0)
    net = DarknetNetwork(narrow(fit(recipe(name), {"size": 64}, 7, 1000))).to(memory_format=torch.channels_last)
    exact = deepcopy(net).double()
    for norm in (module for module in exact.modules() if isinstance(module, BatchNorm)):
        # as the programs write it
        norm.forward = lambda x, norm=norm: (
            (x - x.mean((0, 2, 3), keepdim=True))
            / (x.transpose(0, 1).flatten(1).var(1, unbiased=True)[:, None, None] + norm.eps).sqrt()
            * norm.weight[:, None, None]
            + norm.bias[:, None, None]
        )
    photos = torch.rand(4, 3, 64, 64)
    for each, given in ((net, photos), (exact, photos.double())):
        said = each(given)
        said = torch.cat([raw.flatten(1) for raw in said], 1) if isinstance(said, list) else said
        # deltas as a head's: small, of both signs
        said.backward(torch.linspace(-1, 1, said.numel(), dtype=said.dtype).view_as(said))
    for (key, ours), theirs in zip(net.named_parameters(), exact.parameters(), strict=True):
        assert (ours.grad - theirs.grad).norm() < 1e-3 * theirs.grad.norm(), key


# --- the table of layers ---


@pytest.mark.darknet
@pytest.mark.parametrize("name", ["classifier_tiny", "v3_tiny"])
def test_the_table_is_the_programs(tmp_path, name):
    sections = recipe(name)
    sections[0].options.update(batch="1", subdivisions="1")
    (tmp_path / "net.cfg").write_text(render(sections))
    (tmp_path / "none.weights").write_bytes(struct.pack("<3iQ", 0, 2, 0, 0))
    arguments = ["darknet", "partial", "net.cfg", "none.weights", "out.weights", "99"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)

    def rows(text):
        size = r"(\d+) *x *(\d+) *x *(\d+)"
        row = rf"^ *(\d+) +(?:conv|max)\w* +(\d*) +(\d+) *x *(\d+) */ *(\d+) +{size} +-> +{size} *([\d.]*)"
        return re.findall(row, text, re.MULTILINE)

    # Debian's counts convolutions alone, AlexeyAB's poolings, too
    ours = [row if row[1] else (*row[:-1], "") for row in rows(summary(sections))]
    assert ours == rows(done.stderr)
    assert len(rows(done.stderr)) == sum(section.kind in ("convolutional", "maxpool") for section in sections)


# published for YOLOv3-tiny at 416 and 80 classes: 5.56 billion operations of convolutions; 35,434,956 bytes, 20 of them
# the header. AlexeyAB's program prints 5.571: four of each number that comes out of a pooling beside them
def test_the_tables_total():
    text = summary(fit(recipe("v3_tiny"), {"size": 416}, 80, 1000))
    assert "Total BFLOPs 5.571" in text and "8,858,734 numbers in .weights" in text
    assert (
        text.splitlines()[1].split() == "0 convolutional 16 3 x 3 / 1 416 x 416 x 3 -> 416 x 416 x 16 0.150 BF".split()
    )


def mutate(text, random):
    """Change one line of a cfg as a slip of the hand might."""
    lines = text.splitlines()
    at = int(random.integers(len(lines)))
    line, (key, _, value) = lines[at], lines[at].partition("=")
    kind = random.integers(8)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(int(random.integers(len(lines))), line)
    elif kind == 2 and line:
        cut = int(random.integers(len(line)))
        lines[at] = line[:cut] + line[cut + 1 :]
    elif kind == 3:
        lines[at] = f"{key}={random.choice(['0', '-1', '7', '1e9', '', 'x', '99999999', '1,2', '3.5', '=', ','])}"
    elif kind == 4:
        other = int(random.integers(len(lines)))
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 5:
        lines[at] = f"{key}={value}{random.integers(10)}"
    elif kind == 6:
        lines[at] = f"[{random.choice(['route', 'shortcut', 'maxpool', 'softmax', 'yolo', 'upsample', 'crop', 'net'])}]"
    else:
        lines[at] = "".join(chr(random.integers(33, 127)) for _ in range(5))
    return "\n".join(lines)


def test_mutated_cfgs_work_or_are_refused_in_one_line():
    random = np.random.default_rng(0)
    sources = [narrow(fit(recipe(name), {"size": 32}, 7, 100), 8) for name in ("v3_tiny", "v4_tiny", "classifier_tiny")]
    texts = [render(sections) for sections in sources] + [ODD]
    worked = refused = 0
    for trial in range(200):
        text = mutate(texts[trial % 4], random)
        if trial % 3 == 0:
            text = mutate(text, random)
        try:
            net = DarknetNetwork(parse(text, "a.cfg")).eval()
            if max(np.prod(layer.shape) for layer in layers(net.sections)) < 2**20:
                with torch.no_grad():
                    net(torch.rand(1, *net.size[::-1]))
            worked += 1
        except InputError as error:
            assert "\n" not in str(error) and "a.cfg" in str(error)
            refused += 1
    assert worked > 30 and refused > 100


@pytest.mark.parametrize("name", RECIPES)
def test_every_layer_has_the_shape_that_the_cfg_says(name):
    net = trained_like(narrow(fit(recipe(name), {"size": 64}, 7, 1000), 8))
    seen = []
    for module in net.layers:
        module.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[1:])))
    net(torch.rand(1, 3, 64, 64))
    width_height_channels = [layer.shape for layer in layers(net.sections)]
    assert seen == [(channels, height, width) for width, height, channels in width_height_channels]


STOPPED = (
    "[net]\nwidth=8\nheight=8\nchannels=3\n"
    "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\nactivation=leaky\n"
    "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\nactivation=leaky\n{}"
    "[convolutional]\nfilters=4\nsize=1\nactivation=linear\n[route]\nlayers=-1,0\n"
)


def gradients(net):
    """Of each convolution the largest number of its weights' gradients, None where they have none."""
    net.zero_grad()
    net(torch.rand(2, 3, 8, 8)).sum().backward()
    return [
        None if layer.linear.weight.grad is None else layer.linear.weight.grad.abs().max() for layer in net.layers[:3]
    ]


def test_stopbackward_holds_layers_for_so_many_iterations():
    net = DarknetNetwork(parse(STOPPED.format("stopbackward=5\n"))).train()
    assert not net.freeze()
    for net.iteration in (0, 4):
        first, second, third = gradients(net)
        # a route that passes by brings nothing either
        assert first == second == 0 and third > 0
    net.iteration = 5
    assert all(gradients(net))
    # the numbers are the same with and without it, and a file of weights has the same layers
    assert net.layers[0].norm.running_mean.abs().sum() > 0
    photo = torch.rand(1, 3, 8, 8)
    other = DarknetNetwork(parse(STOPPED.format(""))).eval()
    other.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(photo), other(photo))


def test_stopbackward_of_1_freezes_what_comes_before_it_for_good():
    net = trained_like(parse(STOPPED.format("stopbackward=1\n"))).requires_grad_(True)
    before = deepcopy(net.layers[0].state_dict())
    assert net.freeze()
    net.train()
    net.iteration = 10**6
    first, second, third = gradients(net)
    assert first is None and second == 0 and third > 0
    assert all(torch.equal(value, before[key]) for key, value in net.layers[0].state_dict().items())
    # the layer itself is not frozen on the program's GPUs: its normalisation goes on
    assert net.layers[1].norm.training and not net.layers[0].norm.training


def test_stopbackward_holds_a_head_that_comes_before_it():
    head = "[convolutional]\nfilters=6\nsize=1\nactivation=linear\n[yolo]\nmask=0\nanchors=8,8\nclasses=1\nnum=1\n"
    conv = "[convolutional]\nfilters=3\nsize=1\nstride={}\nactivation=linear\n"
    text = "[net]\nwidth=32\nheight=32\nchannels=3\n" + conv.format(32) + head + "[route]\nlayers=0\n" + conv.format(1)
    net = DarknetNetwork(parse(text + "stopbackward=2\n" + head)).train()
    first, second = net(torch.rand(2, 3, 32, 32))
    (first.sum() + second.sum()).backward()
    moved = [bool(net.layers[i].linear.weight.grad.any()) for i in (0, 1, 4, 5)]
    assert moved == [False, False, False, True]
