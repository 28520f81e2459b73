"""Packed convolutions against the same ones in float64; that whole nets are OpenCV's is in darknet/test_network.py."""

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from fer.darknet.design.architectures import recipe
from fer.darknet.design.fit import fit
from fer.darknet.formats.cfg import parse, render
from fer.darknet.formats.weights import open_net
from fer.darknet.torch_engine.inference import open_on
from fer.darknet.torch_engine.network import DarknetNetwork, fuse
from fer.darknet.torch_engine.onednn import Packed, mish_, pack
from fer.darknet.torch_engine.weighted import ACTIVATIONS, Convolutional
from fer.darknet.torch_engine.weights_io import save_weights


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_shape_of_input_gives_what_float64_gives(activation):
    torch.manual_seed(0)
    text = "[net]\nwidth=9\nheight=7\nchannels=4\n"
    for shape in ("size=3\nstride=2\npad=1", "size=1", "size=2\npadding=2\ngroups=2"):
        text += f"[convolutional]\nfilters=6\n{shape}\nactivation={activation}\n"
    network = fuse(DarknetNetwork(parse(text, "a.cfg")))
    exact = deepcopy(network).double()
    pack(network)
    assert all(isinstance(layer, Packed) for layer in network.layers)
    # the weights are ordered for one shape and then for others, of photos in any order in memory
    for photos in (torch.randn(1, 4, 7, 9), torch.randn(3, 7, 9, 4).permute(0, 3, 1, 2), torch.randn(1, 4, 12, 5)):
        before = photos.clone()
        torch.testing.assert_close(network(photos).double(), exact(photos.double()), rtol=1e-5, atol=1e-6)
        assert torch.equal(photos, before)
    grey = torch.randn(2, 1, 7, 9)
    torch.testing.assert_close(network(grey.expand(-1, 4, -1, -1)), network(grey.repeat(1, 4, 1, 1)))
    assert network(grey[:0].expand(-1, 4, -1, -1)).shape[0] == 0


def test_mish_is_torchs_to_rounding():
    x = torch.cat([torch.linspace(-80, 80, 10001), torch.tensor([-3e38, -0.0, 0, 1e-30, 3e38])])
    torch.testing.assert_close(mish_(x.clone()).double(), F.mish(x.double()), rtol=5e-7, atol=1e-30)


def test_a_net_on_a_cpu_is_packed(tmp_path):
    network = DarknetNetwork(fit(recipe("v4_tiny"), {"size": 32}, 2, 1000))
    for module in network.layers:
        if isinstance(module, Convolutional) and module.norm:
            module.norm.running_var.fill_(1)
    (tmp_path / "net.cfg").write_text(render(network.sections))
    (tmp_path / "emotion.names").write_text("Anger\nFear\n")
    save_weights(network, tmp_path / "net.weights")
    opened, device = open_on(open_net(tmp_path / "net.weights"), "cpu")
    assert device.type == "cpu"
    assert not any(isinstance(layer, Convolutional) for layer in opened.layers)
    photos = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(opened(photos), network.eval()(photos), rtol=1e-4, atol=1e-5)
