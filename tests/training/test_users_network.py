"""What a network of the user's gives is looked at: a mistake in it is one line, before anything is learnt or scored."""

import pytest
import torch
from torch import nn

from fer.deployment.export import export_onnx, export_torch
from fer.errors import InputError
from fer.models.registry import build_network
from fer.targets import trusting
from fer.training.run import assemble
from tests.conftest import fit, train_config, write_tiny


class Ends(nn.Module):
    """A linear layer of grey faces of 16 x 16 pixels, and an ending: what is made of its logits."""

    def __init__(self, num_classes: int, ending: str = "logits"):
        super().__init__()
        self.layer, self.ending = nn.Linear(256, num_classes), ending

    def forward(self, faces):
        return eval(self.ending, {"torch": torch, "logits": self.layer(faces.flatten(1))})


def ending(text):
    return {"_target_": f"{__name__}.Ends", "ending": text}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("(logits, logits)", "tuple"),
        ("None", "NoneType"),
        ("torch.cat([logits, logits], 1)", "torch.float32 (5, 14)"),
        ("logits[:, :3]", "torch.float32 (5, 3)"),
        ("logits[:1]", "torch.float32 (1, 7)"),
        ("logits[..., None]", "torch.float32 (5, 7, 1)"),
        ("logits.long()", "torch.int64 (5, 7)"),
    ],
)
def test_what_are_no_logits_is_one_line(text, shown):
    network = build_network(ending(text), 7, channels=1)
    with pytest.raises(InputError) as error:
        network(torch.rand(5, 1, 16, 16))
    assert str(error.value).startswith(f"model: Ends gives {shown} for 5 faces, not float logits (5, 7), one for each")
    assert "\n" not in str(error.value)


def test_any_float_logits_are_taken():
    for text in ("logits", "logits.half()", "logits.double()"):
        assert build_network(ending(text), 7, channels=1)(torch.rand(5, 1, 16, 16)).shape == (5, 7)


def test_an_export_is_not_held_to_the_faces_it_was_made_with():
    network = build_network(ending("logits"), 7, channels=1).eval()
    dynamic = ({0: torch.export.Dim("faces")},)
    network.network.forward = lambda faces: network.network.layer(faces.flatten(1))
    exported = torch.export.export(network, (torch.rand(5, 1, 16, 16),), dynamic_shapes=dynamic).module()
    faces = torch.rand(9, 1, 16, 16)
    assert torch.allclose(exported(faces), network(faces))


def test_logits_without_a_gradient_end_a_run_before_its_weights_move(tmp_path):
    tiny = write_tiny(tmp_path / "tiny.h5", {"train": 20, "val": 7})
    trainer, model, data, _ = assemble(train_config(tiny) | {"model": ending("logits.detach()")}, tmp_path / "run")
    with pytest.raises(InputError, match="model: Ends gives logits that have no gradient"):
        trainer.fit(model, datamodule=data)
    assert trainer.global_step == 0


@pytest.mark.parametrize(("write", "name"), [(export_onnx, "out.onnx"), (export_torch, "out.pt2")])
def test_a_checkpoint_whose_network_gives_no_logits_is_not_exported(tmp_path, write, name):
    tiny = write_tiny(tmp_path / "tiny.h5", {"train": 20, "val": 7})
    fit(train_config(tiny) | {"model": ending("logits")}, tmp_path / "run")
    content = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    content["hyper_parameters"]["model"]["ending"] = "torch.cat([logits, logits], 1)"
    torch.save(content, tmp_path / "other.ckpt")
    before = set(tmp_path.iterdir())
    with trusting([__name__]), pytest.raises(InputError, match="model: Ends gives torch.float32"):
        write(tmp_path / "other.ckpt", tmp_path / name)
    assert set(tmp_path.iterdir()) == before
