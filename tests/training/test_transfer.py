"""Starting from a plain state dict of another program: what fits is taken and told, what does not is refused."""

import pytest
import torch
from torch import nn

from fer.errors import InputError
from fer.models.classifier import EmotionClassifier
from fer.models.registry import OWN, TORCHVISION
from fer.training.transfer import start_from


def classifier(name="vgg_small", target=OWN):
    return EmotionClassifier.build(
        {
            "model": {"_target_": target, "name": name}, "labels": ["cat", "dog"],
            "face": {"size": 48, "color": "grey"}, "augment": {"crop": 48}, "data": {},
        }
    )  # fmt: skip


def state(name="vgg_small", target=OWN):
    """Return a network's tensors as its own program knows them, each filled with its number."""
    tensors = classifier(name, target).net.network.state_dict()
    return {key: torch.full_like(values, number) for number, (key, values) in enumerate(tensors.items())}


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.model.", "net.network.", "encoder."])
@pytest.mark.parametrize("inner", [None, "state_dict"])
def test_tensors_are_found_behind_common_prefixes(tmp_path, capsys, prefix, inner):
    given = state()
    named = {prefix + name: values for name, values in given.items()}
    torch.save({inner: named, "epoch": 3} if inner else named, path := tmp_path / "backbone.pth")
    model = classifier()
    head = {name.removeprefix("network.") for name in model.net.head_state()}
    fresh = {name: values.clone() for name, values in model.net.network.state_dict().items()}
    start_from(model, str(path))
    for name, values in model.net.network.state_dict().items():
        # the file does not say what its last layer stands for
        assert torch.equal(values, fresh[name] if name in head else given[name])
    count = len(given) - len(head)
    said = capsys.readouterr().out
    assert f"{count} of the {count} tensors of vgg_small before its last layer fit; not used of the file: " in said
    assert said.count("\n") == 1


def test_a_prefix_that_is_the_networks_own_name_is_kept(tmp_path):
    # torchvision's vision transformer names its blocks encoder.layers
    given = state(name="vit_b_32", target=TORCHVISION)
    torch.save({f"module.{name}": values for name, values in given.items()}, path := tmp_path / "vit.pt")
    model = classifier("vit_b_32", TORCHVISION)
    start_from(model, str(path))
    name = "encoder.layers.encoder_layer_0.mlp.0.weight"
    assert torch.equal(model.net.network.state_dict()[name], given[name])


def test_what_does_not_fit_stays_fresh_and_is_named(tmp_path, capsys):
    given = state()
    first, second = list(given)[:2]
    given[first] = torch.zeros(5)
    del given[second]
    torch.save({**given, "arcface.weight": torch.zeros(9)}, path := tmp_path / "backbone.pth")
    model = classifier()
    before = model.net.network.state_dict()[first].clone()
    start_from(model, str(path))
    assert torch.equal(model.net.network.state_dict()[first], before)
    said = capsys.readouterr().out
    assert f"fresh in the network: {first}, {second}\n" in said and f"not used of the file: {first}, " in said


def wrong(kind):
    given = state()
    names = list(given)
    if kind == "another":
        return {"conv.weight": torch.zeros(3)}, "only 0 of the .* choose the network"
    if kind == "few":
        return {name: given[name] for name in names[:6]}, "only 6 of the .* choose the network"
    if kind == "twice":
        return {**given, f"module.{names[0]}": given[names[0]]}, f"both {names[0]} and module.{names[0]} are"
    if kind == "nan":
        return {**given, names[0]: given[names[0]] * torch.nan}, f"{names[0]} has values that are NaN"
    if kind == "no tensors":
        return {"epoch": 3}, "holds no tensors by name"
    # a whole pickled network could run code
    return nn.Linear(2, 2), "not a file of tensors alone"


@pytest.mark.parametrize("kind", ["another", "few", "twice", "nan", "no tensors", "pickle"])
def test_files_that_are_no_start_are_refused_and_change_nothing(tmp_path, kind):
    content, message = wrong(kind)
    torch.save(content, path := tmp_path / "backbone.pth")
    model = classifier()
    before = {name: values.clone() for name, values in model.net.state_dict().items()}
    with pytest.raises(InputError, match=rf"^init={path}: .*{message}") as caught:
        start_from(model, str(path))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(values, before[name]) for name, values in model.net.state_dict().items())


def test_a_missing_file_and_foreign_bytes_are_one_line(tmp_path):
    with pytest.raises(InputError, match="none.pth: no such file"):
        start_from(classifier(), str(tmp_path / "none.pth"))
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(InputError, match="text.pt: not a file of tensors alone"):
        start_from(classifier(), str(tmp_path / "text.pt"))
