"""Every layer of a .cfg worked by hand, and the options of one that are refused."""

import math

import pytest
import torch

from fer.darknet.formats.cfg import parse
from fer.darknet.torch_engine.network import DarknetNetwork, fuse
from fer.darknet.torch_engine.onednn import pack
from fer.errors import InputError

CONV = "[convolutional]\nfilters=4\nsize=1\nactivation=linear\n"
HEAD = "[convolutional]\nfilters=6\nsize=1\nactivation=linear\n[yolo]\nmask=0\nanchors=8,8\nclasses=1\nnum=1\n"
NET = "[net]\nwidth=32\nheight=32\nchannels=3\n"


def net_of(width, height, channels, text):
    net = DarknetNetwork(parse(f"[net]\nwidth={width}\nheight={height}\nchannels={channels}\n{text}", "a.cfg"))
    return net.eval().requires_grad_(False)


def both_ways(net):
    """The net as it is and as it runs on a CPU."""
    fused = fuse(net)
    pack(fused)
    return net, fused


def test_convolution_and_its_activations_worked_by_hand():
    # one weight of 2: (2 * 1.5 - 1) / sqrt(3.99999 + 0.00001) * 3 - 4 = -1, and 3 for 1.5 + 4 / 3
    for name, low, high in [
        ("linear", -1, 3), ("leaky", -0.1, 3), ("relu", 0, 3),
        ("logistic", 1 / (1 + math.e), 1 / (1 + math.exp(-3))),
        ("swish", -1 / (1 + math.e), 3 / (1 + math.exp(-3))),
        ("mish", -math.tanh(math.log(1 + math.exp(-1))), 3 * math.tanh(math.log(1 + math.exp(3)))),
    ]:  # fmt: skip
        net = net_of(2, 1, 1, f"[convolutional]\nbatch_normalize=1\nfilters=1\nsize=1\nactivation={name}\n")
        values = {"bias": -4, "scale": 3, "mean": 1, "variance": 3.99999, "weight": 2}
        for key, tensor in net.layers[0].stored().items():
            tensor.fill_(values[key])
        photo = torch.tensor([1.5, 1.5 + 4 / 3]).view(1, 1, 1, 2)
        for each in (*both_ways(net), fuse(net)):
            assert each(photo).flatten().tolist() == pytest.approx([low, high], abs=1e-6)
        assert photo.flatten().tolist() == pytest.approx([1.5, 1.5 + 4 / 3])
    # without activation= a convolution is logistic
    assert net_of(1, 1, 1, "[convolutional]\n").layers[0].activation == "logistic"


def test_batch_statistics_are_unbiased_and_roll_by_a_hundredth():
    net = net_of(1, 1, 1, "[convolutional]\nbatch_normalize=1\nfilters=1\nsize=1\nactivation=linear\n").train()
    layer = net.layers[0].requires_grad_(False)
    layer.linear.weight.fill_(1)
    # 1, 3, 5: mean 3, sum of squares 8 over 2 = 4
    found = net(torch.tensor([1.0, 3, 5]).view(3, 1, 1, 1)).flatten()
    assert found.tolist() == pytest.approx([-2 / math.sqrt(4.00001), 0, 2 / math.sqrt(4.00001)], rel=1e-6)
    assert (layer.norm.running_mean.item(), layer.norm.running_var.item()) == pytest.approx((0.03, 0.04))
    with pytest.raises(InputError, match=r"a.cfg:5: \[convolutional\]: batch_normalize=1 has one number a channel"):
        net(torch.ones(1, 1, 1, 1))


def test_the_first_weights_are_the_programs():
    torch.manual_seed(0)
    net = net_of(4, 4, 8, "[convolutional]\nfilters=500\nsize=3\npad=1\ngroups=2\n[connected]\noutput=20\n")
    for layer, inputs in zip(net.layers, (4 * 9, 4 * 4 * 500), strict=True):
        bound = math.sqrt(2 / inputs)
        weight = layer.linear.weight
        assert weight.abs().max() <= bound and weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert not layer.linear.bias.any()


def test_windows_of_pooling_worked_by_hand():
    row = torch.tensor([5.0, 1, 2, 4]).view(1, 1, 1, 4)
    for options, expected in [
        ("size=2\nstride=2", [5, 4]),
        # one more column on the right, which never wins: 5 1, 1 2, 2 4, 4
        ("size=2\nstride=1", [5, 2, 4, 4]),
        # padding 2 of both sides: begins one before the edge
        ("size=3\nstride=1", [5, 5, 4, 4]),
        ("size=3\nstride=2", [5, 4]),
        # padding 3: one before, two after
        ("size=4\nstride=1", [5, 5, 4, 4]),
        ("size=2\nstride=2\npadding=0", [5, 4]),
        # one before and one after: 5, 1 2, 4
        ("size=2\nstride=2\npadding=2", [5, 2, 4]),
        ("size=1\nstride=3", [5, 4]),
    ]:
        # in both directions, and below 0 so that an edge of zeros would win
        for photo in (row.expand(1, 1, 4, 4), row.view(1, 1, 4, 1).expand(1, 1, 4, 4)):
            found = net_of(4, 4, 1, f"[maxpool]\n{options}\n")(photo - 100)[0, 0] + 100
            found = found if photo[0, 0, 0, 1] == 1 else found.T
            assert found.tolist() == [expected] * len(expected), options
    assert net_of(3, 3, 2, "[avgpool]\n")(torch.arange(18.0).view(1, 2, 3, 3)).flatten().tolist() == [4, 13]


def test_routes_and_groups_worked_by_hand():
    photo = torch.arange(4.0).view(1, 4, 1, 1)
    identity = torch.eye(4).view(4, 4, 1, 1)
    for options, expected in [
        ("layers=0", [0, 1, 2, 3]), ("layers=-1,0", [0, 10, 20, 30, 0, 1, 2, 3]),
        ("layers=-1\ngroups=2\ngroup_id=1", [20, 30]), ("layers=0,1\ngroups=4\ngroup_id=2", [2, 20]),
        ("layers=0\ngroups=2", [0, 1]),
    ]:  # fmt: skip
        net = net_of(1, 1, 4, f"{CONV}{CONV}[route]\n{options}\n")
        net.layers[0].linear.weight.copy_(identity)
        net.layers[1].linear.weight.copy_(10 * identity)
        assert net(photo).flatten().tolist() == expected, options


def test_sums_softmax_and_connected_worked_by_hand():
    # 2 channels on 4
    net = net_of(1, 1, 4, f"{CONV}[convolutional]\nfilters=2\nactivation=linear\n[shortcut]\nfrom=0\nactivation=relu\n")
    net.layers[0].linear.weight.copy_(torch.eye(4).view(4, 4, 1, 1))
    net.layers[1].linear.weight.copy_(-2 * torch.eye(4)[:2].view(2, 4, 1, 1))
    assert net(torch.tensor([1.0, -1, 3, 4]).view(1, 4, 1, 1)).flatten().tolist() == [0, 1]
    # several at once, as AlexeyAB's program adds them
    net = net_of(1, 1, 4, f"{CONV}{CONV}{CONV}[shortcut]\nfrom=-2,-3\n")
    for layer, factor in zip(net.layers, (1, 10, 10), strict=False):
        layer.linear.weight.copy_(factor * torch.eye(4).view(4, 4, 1, 1))
    assert net(torch.ones(1, 4, 1, 1)).flatten().tolist() == [111] * 4
    softmax = net_of(1, 1, 2, "[softmax]\ntemperature=2\n[cost]\n")
    logits = torch.tensor([2 * math.log(3), 0]).view(1, 2, 1, 1)
    assert softmax(logits).tolist() == [pytest.approx([0.75, 0.25])]
    logits.requires_grad_()
    trained = softmax.train()(logits)
    assert trained.tolist() == [pytest.approx([math.log(3), 0])]
    # the programs hand on the softmax's deltas as they are
    trained.backward(torch.tensor([[0.25, -0.25]]))
    assert logits.grad.flatten().tolist() == [0.25, -0.25]
    # channels, then rows, then columns
    connected = net_of(2, 1, 2, "[connected]\noutput=1\nactivation=linear\n")
    connected.layers[0].linear.weight.copy_(torch.tensor([[1.0, 10, 100, 1000]]))
    assert connected(torch.tensor([1.0, 2, 3, 4]).view(1, 2, 1, 2)).item() == 4321
    upsample = net_of(2, 1, 1, "[upsample]\nstride=2\nscale=3\n")
    assert upsample(torch.tensor([1.0, 2]).view(1, 1, 1, 2)).flatten().tolist() == [3, 3, 6, 6] * 2


def head(options):
    """A [yolo] of two boxes on 32 x 64 pixels, 1 x 2 cells of 32, and one class."""
    text = "[convolutional]\nfilters=12\nsize=32\nstride=32\nactivation=linear\n[yolo]\nclasses=1\nnum=3\nmask=0,2\n"
    return net_of(64, 32, 3, f"{text}anchors=8,4, 1,1, 16,32\n{options}")


def logit(probability):
    return math.log(probability / (1 - probability))


def test_boxes_worked_by_hand():
    raw = torch.zeros(1, 2, 6, 1, 2)
    # the second box of the second cell: x, y, width, height, objectness, class
    raw[0, 1, :, 0, 1] = torch.tensor([logit(0.9), logit(0.25), math.log(2), 0, logit(0.8), logit(0.3)])
    raw = raw.view(1, 12, 1, 2)
    boxes = head("").layers[1].decode(raw, 64, 32)[0]
    assert boxes.shape == (4, 6)
    # cell by cell, its boxes in turn: x (0 + .5) / 2, y .5, 8 / 64, 4 / 32
    assert boxes[0].tolist() == pytest.approx([0.25, 0.5, 0.125, 0.125, 0.5, 0.5])
    assert boxes[1].tolist() == pytest.approx([0.25, 0.5, 0.25, 1, 0.5, 0.5])
    assert boxes[2].tolist() == pytest.approx([0.75, 0.5, 0.125, 0.125, 0.5, 0.5])
    assert boxes[3].tolist() == pytest.approx([0.95, 0.25, 0.5, 1, 0.8, 0.3])
    # about the cell's middle: .9 * 1.2 - .1 = .98, .25 * 1.2 - .1 = .2
    boxes = head("scale_x_y=1.2\n").layers[1].decode(raw, 64, 32)[0]
    assert boxes[3].tolist() == pytest.approx([(1 + 0.98) / 2, 0.2, 0.5, 1, 0.8, 0.3])
    # all is a sigmoid already: x .9 * 2 - .5 = 1.3, y .25 * 2 - .5 = 0, width 4 * .5^2 * 16, height 4 * .75^2 * 32
    raw.view(1, 2, 6, 1, 2)[0, 1, :, 0, 1] = torch.tensor([0.9, 0.25, 0.5, 0.75, 0.8, 0.3])
    boxes = head("scale_x_y=2\nnew_coords=1\n").layers[1].decode(raw, 64, 32)[0]
    assert boxes[3].tolist() == pytest.approx([(1 + 1.3) / 2, 0, 16 / 64, 4 * 0.75**2 * 32 / 32, 0.8, 0.3])


def test_a_detectors_forward_decodes_in_eval_only():
    net = head("")
    photos = torch.rand(2, 3, 32, 64)
    raw = net.train()(photos)
    assert [tuple(numbers.shape) for numbers in raw] == [(2, 12, 1, 2)]
    assert torch.equal(net.eval()(photos), net.layers[1].decode(raw[0], 64, 32))
    # at another size, as training with random=1 has it, the anchors keep their pixels
    assert net(torch.zeros(1, 3, 64, 128))[0, 0, 2].item() == pytest.approx(8 / 128)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NET + "colour=1\n" + CONV, r"a.cfg:1: \[net\]: colour= is no option that darknet knows"),
        (NET + CONV + "paddding=1\n", r"a.cfg:5: \[convolutional\]: paddding= is no option that darknet knows"),
        (NET + CONV + "mask=1\n", r"a.cfg:5: \[convolutional\]: mask= is no option"),
        (NET + CONV + "coordconv=1\n", "coordconv=1 is not supported .*, and weights .* set darknet.engine=binary"),
        (NET + CONV.replace("size=1", "size=3\ndilation=2"), "dilation=2 needs an odd size= and pad=1"),
        (NET + CONV + "xnor=1\n", "xnor=1 is a net of one bit a weight, .*: set darknet.engine=binary, or give"),
        (NET + CONV + "padding=-1\n", "padding=-1 is negative"),
        (NET + CONV.replace("linear", "elu"), "activation=elu is not one of linear, leaky, relu, relu6, ramp, mish"),
        (NET + "[crop]\ncrop_width=30\ncrop_height=32\n[reorg]\nstride=4\n", "stride=4 does not divide its input"),
        (NET + HEAD.replace("yolo", "region").replace("classes=1", "classes=1\ntree=a.tree").replace("mask=0", "max=9"),
         r"\[region\]: tree=a.tree: no such file here"),
        (NET + HEAD.replace("yolo", "Gaussian_yolo").replace("filters=6", "filters=10\npad=1") + "yolo_point=top\n",
         "yolo_point=top is not one of center, left_top, right_bottom"),
        (NET + CONV + "[route]\nlayers=nan\n", "layers=nan is no whole number"),
        (NET + CONV + "[route]\nlayers=-1.5\n", "layers=-1.5 is no whole number"),
        (NET + CONV + "[shortcut]\nfrom=inf\n", "from=inf is no whole number"),
        (NET + CONV + "[dropout]\nprobability=nan\n", "probability=nan is no list of numbers"),
        (NET + CONV.replace("4", "4" * 5000), "4444 is no whole number"),
        (NET + HEAD + HEAD.replace("filters=6", "filters=7").replace("classes=1", "classes=2"),
         "classes=2, but the names or the net's first head are 1"),
        (NET + CONV + "[lstm]\n", r"a.cfg:9: \[lstm\] remembers what came before"),
        (NET + CONV + "[shortcut]\nfrom=0\nweights_type=per_channel\n", "weights_type=per_channel is not supported"),
        (NET + CONV + "[softmax]\ntree=a.tree\n", "tree=a.tree is not supported"),
        (NET + "[avgpool]\n[softmax]\n[avgpool]\n", r"a.cfg:7: \[avgpool\]: follows a \[softmax\], which only"),
        (NET + "[avgpool]\n[softmax]\ntemperature=0\n", "temperature=0 is not positive"),
        (NET + "[avgpool]\n[softmax]\ntemperature=1,2\n", "temperature=1,2 is not one number"),
        (NET + "[dropout]\nprobability=1\n", "probability=1 is not within 0 and 1"),
        (NET + "[maxpool]\nsize=2\npadding=3\n", "padding=3 with size=2 pools nothing at the edge"),
        (NET + CONV.replace("4", "99999999"), r"a.cfg:5: \[convolutional\]: would take 381 GiB"),
        (NET + "[connected]\noutput=999999\n", "would take 11 GiB"),
        (NET + CONV + CONV + "[route]\nlayers=0,1\ngroups=8\n[route]\nlayers=-1\n", "groups=8 do not divide"),
    ],
)  # fmt: skip
def test_what_is_unknown_or_not_built_is_named(text, message):
    with pytest.raises(InputError, match=message) as error:
        DarknetNetwork(parse(text, "a.cfg"))
    assert "\n" not in str(error.value)
