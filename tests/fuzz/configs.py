"""Overrides on the command line, values of configs, and YAML that people write."""

import contextlib
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer.cli.arguments import check_choices, foreign_flag, literal
from fer.cli.errors import explain, not_composed
from fer.cli.launch import CONF
from fer.config.train import check_train
from fer.errors import InputError
from tests.conftest import Singletons
from tests.fuzz.family import Family, require
from tests.fuzz.mutations import HOSTILE, HOSTILE_VALUES, Case, as_bytes, changed_bytes, changed_document

#: What `fer.cli.launch.launch` prints in one line.
_CLEAN = (InputError, HydraException, OmegaConfBaseException)
_CONFIG = ["data=fer2013", "model=vgg_small", "trainer=cpu"]


def _said(error: Exception) -> str:
    """Return what the user reads of an error."""
    return explain(error, str(CONF), "train", [])


def _compose(conf: Path, *words: str) -> DictConfig:
    """Compose as `fer.cli.launch.launch` does, before anything of ours is checked."""
    if foreign_flag(list(words)):
        raise InputError(f"{words}: keys are KEY=VALUE without dashes")
    arguments = [literal(word) for word in words]
    check_choices(arguments, conf)
    try:
        with contextlib.redirect_stderr(None), initialize_config_dir(str(conf), version_base="1.3"):
            return compose("train", [*_CONFIG, *arguments])
    except _CLEAN:
        raise
    except Exception as error:
        raise not_composed(error) from error


@cache
def _composed() -> DictConfig:
    with Singletons(), initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", _CONFIG)


@cache
def _plain() -> dict[str, Any]:
    """The config of a training of vgg_small on FER2013 as plain data, and what it comes to when it is checked."""
    config = OmegaConf.to_container(_composed(), resolve=True)
    assert isinstance(config, dict)
    return config


@cache
def _checked() -> dict[str, Any]:
    return check_train(_composed())


def _values() -> st.SearchStrategy[Case]:
    words = tuple(value for value in HOSTILE_VALUES if not isinstance(value, dict) or "" not in value)
    return changed_document(_plain(), (*words, "torch.optim", "torch.optim.SDG", "os.system", "1e400", 0.5), keep=())


def _leaves(value: Any, path: tuple = ()) -> dict[tuple, Any]:
    if isinstance(value, dict):
        return {at: leaf for key, inner in value.items() for at, leaf in _leaves(inner, (*path, key)).items()}
    return {path: value}


def _require_config(config: dict[str, Any], said: dict[str, Any], touched: tuple = ()) -> None:
    """Raise `Wrong` where a checked config says other than what was given, or what no run can have."""
    before, now = _leaves(_checked()), _leaves(config)
    given = _leaves(said)
    for path, value in now.items():
        if path[: len(touched)] == touched and touched:
            continue
        if path in before and before[path] == before[path]:
            require(value == before[path] or given.get(path) == value, f"{'.'.join(map(str, path))}={value!r:.40}")
    trainer, optimizer = config["trainer"], config["optimizer"]
    require(type(config["seed"]) is int and 0 <= config["seed"] < 2**32, f"seed {config['seed']!r:.40}")
    require(isinstance(optimizer, dict) and isinstance(trainer, dict), "optimizer or trainer that are no groups")
    accumulate = trainer.get("accumulate_grad_batches", 1)
    require(type(accumulate) is int and accumulate >= 1, f"accumulate_grad_batches {accumulate!r:.40}")
    require(optimizer["_target_"].startswith("torch.optim."), f"optimizer {optimizer['_target_']!r:.40}")
    for key in ("lr", "momentum", "weight_decay"):
        value = optimizer.get(key, 0.0)
        # however large: a training that it leads nowhere says so
        require(type(value) in (int, float) and 0 <= value < 3.5e38, f"optimizer.{key}={value!r:.40}")
    clip = trainer.get("gradient_clip_val")
    require(
        clip is None or (isinstance(clip, int | float) and 0 <= clip < float("inf")), f"gradient_clip_val {clip!r:.40}"
    )


def _open_values(case: Case, folder: Path) -> None:
    with Singletons():
        config = check_train(OmegaConf.create(case.content))
        _require_config(config, case.content, case.note)


@st.composite
def _overrides(draw: st.DrawFn) -> Case:
    """One or two words of a command line."""
    keys = [".".join(map(str, path)) for path in _leaves(_plain())] + ["data", "model", "optimizer", "trainer", "hydra"]
    words = []
    for _ in range(draw(st.integers(1, 2))):
        key = draw(st.sampled_from(keys))
        start = draw(st.sampled_from(("",) * 6 + ("+", "++", "~", "--", "-", " ", "'")))
        value = draw(
            st.sampled_from(
                (*HOSTILE, "null", "[1]", "{a:1}", "[", "{_target_:x}", "a,b", "range(3)", "${seed}", "${oc.env:HOME}")
            )
        )
        words.append(
            draw(st.sampled_from((f"{start}{key}={value}", f"{start}{key}={value}", f"{start}{key}", f"{key}{value}")))
        )
    return Case("override", words)


#: What follows from another group where nothing else is said.
_FROM = {"name": ("data", "model", "darknet"), "augment.crop": ("data",)}


def _open_overrides(case: Case, folder: Path) -> None:
    with Singletons():
        config = check_train(_compose(CONF, *case.content))
    given = [word.lstrip("+~'- ").partition("=")[0] for word in case.content]
    for path, value in _leaves(_checked()).items():
        name = ".".join(map(str, path))
        if not any(name == key or name.startswith(f"{key}.") or key.startswith(name) for key in given):
            now = _leaves(config).get(path, value)
            derived = any(key.split(".")[0] in _FROM.get(name, ()) for key in given)
            require(now == value or value != value or derived, f"{name}={now!r:.40}")
    require(type(config["seed"]) is int and 0 <= config["seed"] < 2**32, f"seed {config['seed']!r:.40}")


def _whole_yaml() -> list[Case]:
    return [Case("whole", (CONF / f"{name}.yaml").read_bytes(), name) for name in _FILES]


_FILES = (
    "data/fer2013",
    "model/vgg_small",
    "optimizer/sgd",
    "schedule/step",
    "recipe/plain",
    "loss/cross_entropy",
    "trainer/cpu",
)


@st.composite
def _yamls(draw: st.DrawFn) -> Case:
    """A file of conf/ that somebody wrote anew."""
    name = draw(st.sampled_from(_FILES))
    content = (CONF / f"{name}.yaml").read_bytes()
    how = draw(st.sampled_from(("bytes", "value", "document")))
    if how == "bytes":
        case = draw(changed_bytes(content))
        return Case(f"yaml {case.how}", case.content, name)
    if how == "document":
        value = draw(st.sampled_from((None, [], [1], "x", 3, {}, {"defaults": ["x"]}, {"defaults": 3}, {1: 2})))
        return Case("yaml document", yaml.safe_dump(value).encode(), name)
    lines = content.decode().splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    key = lines[at].partition(":")[0]
    lines[at] = (
        f"{key}: {draw(st.sampled_from((*HOSTILE, '!!python/object/apply:os.system [x]', '*x', '&x', '{', '- 1')))}"
    )
    return as_bytes(Case("yaml value", "\n".join(lines) + "\n", name))


def _open_yaml(case: Case, folder: Path) -> None:
    conf = folder / "conf"
    if not conf.exists():
        shutil.copytree(CONF, conf)
    path = conf / f"{case.note}.yaml"
    before = path.read_bytes()
    path.write_bytes(case.content)
    try:
        with Singletons():
            check_train(_compose(conf))
    finally:
        path.write_bytes(before)


FAMILIES = [
    Family("config values", lambda: [Case("whole", _plain(), ())], _values, _open_values, _CLEAN, _said, 0.5),
    Family("overrides", lambda: [Case("whole", ["seed=3"])], _overrides, _open_overrides, _CLEAN, _said, 0.3),
    Family("YAML", _whole_yaml, _yamls, _open_yaml, _CLEAN, _said, 0.3),
]
