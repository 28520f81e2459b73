"""Augmentation of the user's: what it is given and may give back, its draws, and how it goes with the rest of a run."""

import random

import kornia.augmentation
import numpy as np
import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from torch import nn
from torchvision.transforms import v2
from torchvision.utils import make_grid

from fer.errors import InputError
from fer.models.checkpoint import load_checkpoint
from fer.training.augment import Augment, Augmentation, Chain
from fer.training.run import assemble
from tests.conftest import fit, train_config, write_tiny
from tests.training.test_run import Signal, assert_equal, cut


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A prepared file of 20 x 20 grey faces, which the tests of this file do not change."""
    return write_tiny(tmp_path_factory.mktemp("data") / "tiny.h5", {"train": 150, "val": 40})


class Shaky(nn.Module):
    """Draws from every global generator, and has a weight and a buffer, as some modules have."""

    def __init__(self, strength: float = 0.1):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(strength))
        self.register_buffer("kernel", torch.ones(1))

    def forward(self, faces):
        shift = random.random() + np.random.rand() + torch.rand(len(faces), 1, 1, 1)
        return (faces + self.weight * self.kernel * (shift - 1.5)).clamp(0, 1)


class Gives(nn.Module):
    """Gives what it was made with, whatever it is given, and keeps that."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, faces):
        self.given, self.default = faces.clone(), torch.get_default_dtype()
        return self.what(faces)


class Album(DummyLogger):
    """Keeps the pictures of one run."""

    pictures = {}

    def log_image(self, key, images, step=None):
        self.pictures[key] = images[0]


def own(name, **arguments):
    return {"_target_": f"{__name__}.{name}", **arguments}


#: kornia's, torchvision's and one's own, after each other; the faces are 20 pixels.
MIXED = {
    "_target_": "fer.training.augment.Chain",
    "crop": 16,
    "transforms": [
        {"_target_": "kornia.augmentation.RandomAffine", "degrees": 12.0, "translate": [0.1, 0.1], "p": 0.8},
        {"_target_": "kornia.augmentation.RandomCrop", "size": [16, 16]},
        {"_target_": "torchvision.transforms.v2.ColorJitter", "brightness": 0.3, "contrast": 0.3},
        {"_target_": "kornia.augmentation.RandomErasing", "p": 0.5},
        own("Shaky"),
    ],
}


def config(tiny, augment, **changes):
    return train_config(tiny, **changes) | {"augment": augment}


def images(n=64, channels=1, size=20):
    return torch.randint(256, (n, channels, size, size), generator=torch.Generator().manual_seed(0)).byte()


def giving(what, crop=20):
    """Return an augmentation of one module that gives what a function makes of the faces, and that module."""
    augmentation = Augmentation(own("Gives", what=what), crop)
    return augmentation, augmentation.module


def test_ours_gives_the_pixels_over_255():
    faces = images()
    augment = {"_target_": "fer.training.augment.Augment", "crop": 20, "flip": 0.0}
    assert torch.equal(Augmentation(augment, 20)(faces), faces / 255)
    # in a chain as well
    given = Augmentation({"_target_": "fer.training.augment.Chain", "transforms": [augment]}, 20)(faces)
    assert torch.allclose(given, faces / 255, atol=1e-6)


def test_our_light_stays_in_range_in_a_chain():
    chain = Chain([Augment(20, brightness=0.5, contrast=0.5)])
    given = chain(images() / 255)
    # ours clamps at 255
    assert given.max() == 1 and given.min() >= 0 and not torch.equal(given, images() / 255)


def test_kornia_does_what_it_does_alone():
    faces = images()
    augmentation = Augmentation({"_target_": "kornia.augmentation.RandomAffine", "degrees": 30.0, "p": 1.0}, 20)
    torch.manual_seed(3)
    given = augmentation(faces)
    torch.manual_seed(3)
    expected = kornia.augmentation.RandomAffine(degrees=30.0, p=1.0)(faces / 255)
    assert torch.allclose(given, expected, atol=1e-6)
    # each face has its own turn: of the same face there are as many pictures
    same = augmentation(faces[:1].expand(64, -1, -1, -1))
    assert len({face.numpy().tobytes() for face in same}) == 64


@pytest.mark.parametrize("wrapped", ["alone", "chain", "compose"])
def test_torchvision_draws_for_each_face(wrapped):
    flip = {"_target_": "torchvision.transforms.v2.RandomHorizontalFlip"}
    augment = {
        "alone": flip,
        "chain": {"_target_": "fer.training.augment.Chain", "transforms": [flip]},
        "compose": {"_target_": "torchvision.transforms.v2.Compose", "transforms": [flip]},
    }[wrapped]
    faces = images(400)
    torch.manual_seed(0)
    given = Augmentation(augment, 20)(faces)
    flipped = [torch.equal(one, face.flip(-1) / 255) for one, face in zip(given, faces, strict=True)]
    kept = [torch.equal(one, face / 255) for one, face in zip(given, faces, strict=True)]
    # 200 with a standard deviation of 10; five of them to either side
    assert 150 < sum(flipped) < 250 and sum(flipped) + sum(kept) == 400


def test_a_users_subclass_of_torchvisions_draws_for_each_face():
    class Mine(v2.RandomHorizontalFlip):
        pass

    given = Chain([Mine()])(images(1).expand(64, -1, -1, -1) / 255)
    assert len({face.numpy().tobytes() for face in given}) == 2


def test_it_is_given_floats_that_are_its_own_in_full_precision():
    augmentation, module = giving(lambda faces: faces.zero_())
    faces = images()
    untouched = faces.clone()
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            given = augmentation(faces)
    finally:
        torch.set_default_dtype(before)
    assert module.given.dtype == module.default == torch.float32
    assert torch.equal(module.given, untouched / 255) and torch.equal(faces, untouched)
    # as the network takes them in bf16-true
    assert given.dtype == torch.bfloat16 and not given.any()


def of_uint8(*transforms):
    """Return a chain whose transforms are given uint8."""
    return {"_target_": "fer.training.augment.Chain", "dtype": "uint8", "transforms": list(transforms)}


def test_a_chain_of_uint8_gives_pixels_that_are_its_own():
    seen = []

    def keep(faces):
        seen.append(faces.clone())
        return faces.zero_() if len(seen) == 2 else faces / 255

    faces = images()
    untouched = faces.clone()
    # what the first one gives as floats is pixels again for the second
    given = Augmentation(of_uint8(own("Gives", what=keep), own("Gives", what=keep)), 20)(faces)
    assert all(torch.equal(each, untouched) and each.dtype == torch.uint8 for each in seen) and len(seen) == 2
    assert torch.equal(faces, untouched) and not given.any() and given.dtype == torch.float32


def test_ours_is_the_same_in_a_chain_of_uint8():
    faces = images()
    strong = {"_target_": "fer.training.augment.Augment", "crop": 20, "rotate": 12.0, "brightness": 0.3, "erase": 0.3}
    torch.manual_seed(1)
    expected = Augmentation(strong, 20)(faces)
    torch.manual_seed(1)
    assert torch.equal(Augmentation(of_uint8(strong), 20)(faces), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_torchvisions_of_uint8_do_what_they_do_alone(channels):
    faces = images(16, channels)
    solarize = {"_target_": "torchvision.transforms.v2.RandomSolarize", "threshold": 128}
    torch.manual_seed(2)
    given = Augmentation(of_uint8(solarize, {"_target_": "torchvision.transforms.v2.RandAugment"}), 20)(faces)
    torch.manual_seed(2)
    first, second = v2.RandomSolarize(128), v2.RandAugment()
    # each transform has drawn for all faces before the next one does
    expected = torch.stack([second(face) for face in [first(face) for face in faces]])
    assert torch.equal(given, expected / 255) and not torch.equal(expected, faces)


def test_kornia_and_torchvision_share_a_chain_each_with_its_own_type():
    turn = {"_target_": "kornia.augmentation.RandomAffine", "degrees": 30.0, "p": 1.0}
    invert = {"_target_": "torchvision.transforms.v2.RandomSolarize", "threshold": 128, "p": 1.0}
    parts = [turn, of_uint8(invert), own("Gives", what=abs)]
    chain = {"_target_": "fer.training.augment.Chain", "transforms": parts}
    augmentation, faces = Augmentation(chain, 20), images(16)
    torch.manual_seed(3)
    given = augmentation(faces)
    torch.manual_seed(3)
    turned = kornia.augmentation.RandomAffine(degrees=30.0, p=1.0)(faces / 255)
    pixels = (255 * turned).round()
    assert torch.allclose(given, torch.where(pixels >= 128, 255 - pixels, pixels) / 255, atol=1e-6)
    assert augmentation.module.transforms[2].given.dtype == torch.float32


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda faces: faces.float(), "Gives gives values from 0 to 255, not in"),
        (lambda faces: faces / 0.0, "Gives gives values that are NaN"),
    ],
)
def test_what_would_be_cut_to_pixels_is_one_line(what, message):
    with pytest.raises(InputError, match=f"^augment: {message}"):
        Augmentation(of_uint8(own("Gives", what=what), own("Centre")), 16)(images())


def test_a_type_that_there_is_not_is_one_line(tmp_path, run):
    chain = ["augment=custom", "augment._target_=fer.training.augment.Chain", "+augment.transforms=[]"]
    done = run("train.py", *chain, "+augment.dtype=int8", "data=sample", cwd=tmp_path, code=2)
    assert done.stderr.strip().endswith(
        "augment.dtype=int8: not float32 or uint8, as fer.training.augment.Chain takes it"
    )


def test_uint8_is_taken_back():
    faces = images()
    assert torch.equal(giving(lambda given: (given * 255).round().byte())[0](faces), faces / 255)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda faces: faces[:-1], "gives (63, 1, 20, 20), not (64, 1, 20, 20), the faces (N, C, H, W) as evaluation"),
        (lambda faces: faces.expand(-1, 3, -1, -1), "gives (64, 3, 20, 20), not (64, 1, 20, 20)"),
        (lambda faces: faces[0], "gives (1, 20, 20), not (64, 1, 20, 20)"),
        (lambda faces: faces[..., :16], "gives (64, 1, 20, 16), not (64, 1, 20, 20)"),
        (
            lambda faces: faces[..., :16, :16],
            "as evaluation cuts them: give augment.crop=16, or have it give 20 pix",
        ),
        (lambda faces: faces / 0, "gives values that are NaN"),
        (lambda faces: faces * 255, "gives values from 0 to 255, not in [0, 1]"),
        (lambda faces: (faces - 0.5) / 0.5, "gives values from -1 to 1, not in [0, 1]: have it clamp them; a normalis"),
        (lambda faces: faces.long(), "gives torch.int64, not floats in [0, 1] or uint8"),
        (lambda faces: list(faces), "gives list, not a tensor (N, C, H, W)"),
    ],
)
def test_what_cannot_be_faces_is_one_line(what, message):
    with pytest.raises(InputError) as error:
        giving(what)[0](images())
    assert str(error.value).startswith("augment: ") and message in str(error.value) and "\n" not in str(error.value)


def test_rounding_is_no_mistake():
    assert giving(lambda faces: faces + 1e-5)[0](images()).max() > 1


def test_a_shape_is_looked_at_in_every_step():
    augmentation, module = giving(lambda faces: faces)
    augmentation(images())
    module.what = lambda faces: faces[1:]
    with pytest.raises(InputError, match=r"gives \(63, 1, 20, 20\)"):
        augmentation(images())


def test_faces_of_different_sizes_are_one_line():
    class Uneven(v2.RandomHorizontalFlip):
        def forward(self, face):
            return face[..., : 20 - int(torch.randint(5, ()))]

    with pytest.raises(InputError, match="augment: Uneven gives faces of different shapes, .* leave it out"):
        Chain([Uneven()])(images() / 255)


def test_a_mistake_ends_a_run_before_its_weights_move(tiny, tmp_path):
    chain = {"_target_": "fer.training.augment.Chain", "transforms": [{"_target_": "kornia.augmentation.RandomCrop",
             "size": [12, 12]}]}  # fmt: skip
    trainer, model, data, _ = assemble(config(tiny, chain), tmp_path)
    with pytest.raises(InputError, match="augment.crop=12, or have it give 20 pixels a side"):
        trainer.fit(model, datamodule=data)
    assert trainer.global_step == 0


@pytest.mark.parametrize(
    "options", [{"recipe": "mixed", "recipe.ema": 0.8}, {"recipe.sam": 0.1}, {"trainer.precision": "bf16-mixed"}]
)
def test_a_cut_run_ends_as_an_unbroken_one(tiny, tmp_path, options):
    options = options | {"trainer.max_epochs": 3, "channels_last": "true", "data.keep": "device"}
    fit(config(tiny, MIXED, **options), tmp_path / "whole")
    cut(config(tiny, MIXED, **options), tmp_path / "cut", Signal("on_train_batch_end", 2))
    # what else has drawn by then is no matter
    random.seed(5), np.random.seed(6), torch.manual_seed(7)
    resume = tmp_path / "cut/checkpoints/interrupted.ckpt"
    fit(config(tiny, MIXED, **options, resume=resume), tmp_path / "rest")
    for name in ("last", "best"):
        assert_equal(tmp_path / f"whole/checkpoints/{name}.ckpt", tmp_path / f"rest/checkpoints/{name}.ckpt")


def test_its_draws_decide_the_weights(tiny, tmp_path):
    # as the test above would pass without any
    for name, augment in (("mixed", MIXED), ("centre", MIXED | {"transforms": [own("Centre")]})):
        fit(config(tiny, augment, **{"trainer.max_epochs": 1}), tmp_path / name)
    with pytest.raises(AssertionError):
        assert_equal(tmp_path / "mixed/checkpoints/last.ckpt", tmp_path / "centre/checkpoints/last.ckpt")


class Centre(nn.Module):
    def forward(self, faces):
        return faces[..., 2:18, 2:18]


def test_a_checkpoint_has_nothing_of_it_but_its_config(tiny, tmp_path):
    fit(config(tiny, MIXED, **{"trainer.max_epochs": 1, "recipe.ema": 0.9}), tmp_path)
    content = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert content["hyper_parameters"]["augment"] == MIXED
    assert all(name.startswith("net.") for name in content["state_dict"])
    assert load_checkpoint(tmp_path / "checkpoints/last.ckpt").crop == 16


def test_both_passes_of_sam_and_the_teachers_see_the_same_faces(tiny, tmp_path):
    fit(config(tiny, MIXED, **{"trainer.max_epochs": 1}), tmp_path / "teacher")
    teacher = tmp_path / "teacher/checkpoints/last.ckpt"
    options = {"recipe.sam": 0.1, "recipe.teachers": f"[{teacher}]", "trainer.max_epochs": 1}
    trainer, model, data, _ = assemble(config(tiny, MIXED, **options), tmp_path / "student")
    student, teachers = [], []
    model.net.register_forward_pre_hook(lambda net, args: student.append(args[0]) if net.training else None)
    model.teachers._nets[0].register_forward_pre_hook(lambda net, args: teachers.append(args[0]))
    trainer.fit(model, datamodule=data)
    # 150 faces in batches of 32
    assert len(student) == len(teachers) == 2 * 5
    assert all(torch.equal(first, second) for first, second in zip(student[::2], student[1::2], strict=True))
    assert all(torch.equal(first, second) for first, second in zip(student, teachers, strict=True))
    assert not torch.equal(student[0], student[2])


@pytest.mark.parametrize("augment", [MIXED, None])
def test_the_picture_shows_what_the_network_is_given(tiny, tmp_path, augment):
    given = train_config(tiny, recipe="mixed", **{"trainer.max_epochs": 1, "recipe.mix": 1.0})
    given |= {"logger": {"album": own("Album")}} | ({"augment": augment} if augment else {})
    trainer, model, data, _ = assemble(given, tmp_path)
    seen = []
    model.net.register_forward_pre_hook(lambda net, args: seen.append(args[0]) if net.training else None)
    trainer.fit(model, datamodule=data)
    expected = make_grid((255 * seen[0]).round().to(torch.uint8), nrow=8).permute(1, 2, 0)
    assert np.array_equal(Album.pictures["input/augmented"], expected.numpy())


def test_a_checkpoint_of_before_is_gone_on_with(tiny, tmp_path):
    fit(train_config(tiny, **{"trainer.max_epochs": 1}), tmp_path / "first")
    fit(train_config(tiny, **{"trainer.max_epochs": 2}), tmp_path / "whole")
    last = tmp_path / "first/checkpoints/last.ckpt"
    content = torch.load(last, weights_only=True)
    del content["hyper_parameters"]["augment"]["_target_"]
    torch.save(content, last)
    assert load_checkpoint(last).crop == 16
    fit(train_config(tiny, **{"trainer.max_epochs": 2, "resume": last}), tmp_path / "rest")
    assert_equal(tmp_path / "whole/checkpoints/last.ckpt", tmp_path / "rest/checkpoints/last.ckpt")
