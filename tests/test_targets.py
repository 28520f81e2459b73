"""Parts that a config names by ``_target_``: the signature is the schema, every mistake is one line."""

import sys
import textwrap
from typing import Any, Literal, Protocol

import pytest
import torch

from fer.errors import InputError
from fer.targets import build, check_target, locate, takes

LINEAR = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}


def part(size: int, rate: float = 0.5, kind: Literal["soft", "hard"] = "soft", names: list[str] | None = None) -> dict:
    """A part with a type of each kind."""
    if size < 1:
        raise ValueError(f"size={size} is not positive")
    return {"size": size, "rate": rate, "kind": kind, "names": names}


PART = f"{__name__}.part"


def test_a_target_is_built_with_its_arguments():
    assert build(check_target(LINEAR, "layer")).weight.shape == (2, 3)
    assert build({"_target_": PART, "size": 1}, rate=1) == {"size": 1, "rate": 1, "kind": "soft", "names": None}


def test_targets_among_the_arguments_are_built_first():
    layers = {"_target_": "torch.nn.ModuleList", "modules": [LINEAR, {"_target_": "torch.nn.ReLU"}]}
    built = build(check_target(layers, "layers"))
    assert [type(layer) for layer in built] == [torch.nn.Linear, torch.nn.ReLU]


def test_a_partial_target_is_given_the_rest_later():
    config = check_target({"_target_": PART, "_partial_": True, "rate": 2}, "part")
    assert build(config)(3)["rate"] == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "part._target_ is missing: it names the class to build"),
        ({"_target_": "nothing"}, "part._target_=nothing: not the name of a class or function, such as"),
        ({"_target_": "no_such_lab.Net"}, "part._target_=no_such_lab.Net: there is no such class: no module no_s"),
        ({"_target_": "torch.nn.Liner"}, "Liner is not in torch.nn (did you mean Linear?)"),
        ({"_target_": "torch.nn"}, "neither a class nor a function"),
        ({"_target_": PART}, "part.size is missing"),
        ({"_target_": PART, "size": 1, "rat": 1}, "there is no key part.rat (did you mean rate?)"),
        ({"_target_": PART, "size": 1.5}, "part.size=1.5: not a whole number"),
        ({"_target_": PART, "size": True}, "part.size=True: not a whole number"),
        ({"_target_": PART, "size": 1, "rate": None}, "part.rate=null: not a finite number"),
        ({"_target_": PART, "size": 1, "rate": float("nan")}, "part.rate=nan: not a finite number"),
        ({"_target_": PART, "size": 1, "kind": "hrad"}, "part.kind=hrad: not soft or hard"),
        ({"_target_": PART, "size": 1, "names": [1]}, "part.names=[1]: not a list or null"),
        ({"_target_": "torch.nn.ModuleList", "modules": [LINEAR | {"bais": 1}]}, "no key part.modules.0.bais"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(config, message):
    with pytest.raises(InputError) as error:
        check_target(config, "part")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_the_program_adds_is_not_the_users():
    assert check_target({"_target_": PART}, "part", given=("size",)) == {"_target_": PART}
    assert check_target({"_target_": "torch.nn.ReLU"}, "part", offered=("size",))
    with pytest.raises(InputError, match="part.size=1: is given to .* by the program; leave it out"):
        check_target({"_target_": PART, "size": 1}, "part", given=("size",))
    assert takes(PART, ("size", "num_classes")) == ["size"]


class Sized(Protocol):
    def __len__(self) -> int: ...


def loose(one: Any, two: Sized, three: list[Any]) -> None:
    """A part whose types say little."""


def test_of_types_that_say_nothing_everything_is_taken():
    config = {"_target_": f"{__name__}.loose", "one": 3, "two": 0.5, "three": [None, {"a": 1}]}
    assert check_target(config, "part") == config
    with pytest.raises(InputError, match="part.three=3: not a list"):
        check_target(config | {"three": 3}, "part")


def test_a_constructor_says_what_is_out_of_range():
    with pytest.raises(InputError, match="part: cannot be built: ValueError: size=0 is not positive"):
        build({"_target_": PART, "size": 0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Net(:\n    pass", "users_part cannot be imported: SyntaxError: invalid syntax (users_part.py, line 1)"),
        ("import no_such_package", "users_part needs the package no_such_package, which is not installed"),
        ("1 / 0", "users_part cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_users_module_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch, text, message):
    (tmp_path / "users_part.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_part", raising=False)
    with pytest.raises(InputError) as error:
        locate("users_part.Net")
    assert message in str(error.value) and "\n" not in str(error.value)
