"""Checkpoints that a run goes on from: all that ``resume=`` restores beside the weights, through its first epoch."""

import contextlib
import io
import shutil
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hypothesis import strategies as st

from fer.data.source import FaceFormat
from tests.conftest import fit, train_config, write_tiny
from tests.fuzz.family import Family, require, workplace
from tests.fuzz.mutations import HOSTILE_VALUES, Case, changed_bytes, changed_document

SIDE = 16
#: Runs of two epochs of three steps: what each is trained with, and the step in which it is cut.
RUNS: dict[str, tuple[dict[str, Any], int | None]] = {
    "cut": ({}, 4),
    "ended": ({"early_stop": 5, "recipe.ema": 0.9, "schedule": "plateau", "optimizer": "adamw"}, None),
}
#: Numbers that say nothing wrong by themselves; whatever they are a run goes on, to other weights.
FREE = ("best", "num_bad_epochs", "wait_count", "best_score", "exp_avg", "exp_avg_sq", "momentum_buffer")
_VALUES = (*HOSTILE_VALUES, 3, 4, 5, 6, 0.02, torch.zeros(2), torch.tensor(float("nan")), torch.tensor(2.0))


class Cut(pl.Callback):
    """Saves a checkpoint before a step of the optimiser, as an interrupt does."""

    def __init__(self, path: Path, step: int | None) -> None:
        self._path, self._step = path, step

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self._step:
            trainer.save_checkpoint(self._path)


def _config(name: str, **changes: Any) -> dict[str, Any]:
    file = workplace() / "resume.h5"
    if not file.exists():
        write_tiny(file, {"train": 21, "val": 7}, FaceFormat(SIDE))
    size = {"data.size": SIDE, "augment.crop": SIDE, "model.in_channels": 1, "batch_size": 7, "trainer.max_epochs": 2}
    return train_config(file, **size | RUNS[name][0] | changes)


@cache
def _run(name: str) -> Path:
    """The folder of the run of two epochs, with start.ckpt, from which another goes on to the same weights."""
    out = workplace() / f"resume-{name}"
    step = RUNS[name][1]
    with _quiet():
        fit(_config(name), out / "whole", Cut(out / "whole/checkpoints/start.ckpt", step))
        start = out / "whole/checkpoints/start.ckpt"
        if step is None:
            fit(_config(name, **{"trainer.max_epochs": 1}), out / "first")
            start = out / "first/checkpoints/last.ckpt"
    (out / "kept").mkdir()
    shutil.copy(start, out / "kept/start.ckpt")
    shutil.copy(start.with_name("best.ckpt"), out / "kept/best.ckpt")
    return out


@contextlib.contextmanager
def _quiet() -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@cache
def _bytes(name: str) -> bytes:
    return (_run(name) / "kept/start.ckpt").read_bytes()


@cache
def _resumed(name: str) -> dict[str, Any]:
    """The configuration of the run that goes on."""
    return _config(name, resume=_run(name) / "kept/start.ckpt")


@cache
def _expected(name: str) -> dict[str, torch.Tensor]:
    return torch.load(_run(name) / "whole/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def _whole() -> list[Case]:
    return [Case(name, _bytes(name), (name,)) for name in RUNS]


def _saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@st.composite
def _changed(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from(tuple(RUNS)))
    content = torch.load(io.BytesIO(_bytes(name)), weights_only=True)
    part = draw(
        st.sampled_from(
            ("loops", "loops", "loops", "optimizer_states", "optimizer_states", "lr_schedulers", "lr_schedulers")
            + ("callbacks", "callbacks", "FaceDataModule", "hyper_parameters", "top", "bytes", "tensor")
        )
    )
    if part == "bytes":
        case = draw(changed_bytes(_bytes(name)))
        return Case(f"{name}, {case.how}", case.content, (name,))
    if part == "top":
        key = draw(st.sampled_from(sorted(content)))
        if draw(st.booleans()):
            return Case(f"{name}, {key}: left out", _saved({k: v for k, v in content.items() if k != key}), (name, key))
        value = draw(st.sampled_from(_VALUES))
        return Case(f"{name}, {key}: {value!r:.30}", _saved(content | {key: value}), (name, key))
    if part == "tensor":
        states: dict[Any, Any] = content["optimizer_states"][0]["state"]
        held = [(values, key) for values in states.values() for key in values if isinstance(values[key], torch.Tensor)]
        if "current_model_state" in content:
            held += [(content["current_model_state"], key) for key in sorted(content["current_model_state"])]
        values, key = draw(st.sampled_from(held))
        how = draw(st.sampled_from(("nan", "infinite", "shape", "empty", "complex", "half", "whole", "sparse", "none")))
        was = values[key]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values[key] = {
                "nan": lambda: was * float("nan"), "infinite": lambda: was + float("inf"), "shape": lambda: was[None],
                "empty": lambda: torch.empty(0), "complex": lambda: was.to(torch.complex64), "half": was.half,
                "whole": was.long, "sparse": was.to_sparse, "none": lambda: None,
            }[how]()  # fmt: skip
        return Case(f"{name}, tensor {key}: {how}", _saved(content), (name, key))
    # the state is of many weights, which would leave little to the settings
    keep = ((part, 0, "state"),) if part == "optimizer_states" and draw(st.booleans()) else ()
    case = draw(changed_document({part: content[part]}, _VALUES, keep))
    return Case(f"{name}, {case.how} {case.note}", _saved(content | case.content), (name, *case.note))


def _open(case: Case, folder: Path) -> None:
    name = case.note[0]
    run = folder / name
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(_run(name) / "kept", run / "before")
    path = run / "before/start.ckpt"
    path.write_bytes(case.content)
    with _quiet():
        trainer, module = fit(_resumed(name) | {"resume": str(path)}, run / "after")
    require(trainer.current_epoch == 2 and trainer.global_step == 6, f"ended after {trainer.global_step} steps")
    got = torch.load(run / "after/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    require(got.keys() == _expected(name).keys(), "other weights")
    require(all(values.isfinite().all() for values in got.values()), "weights that are not finite")
    if not any(key in FREE for key in case.note):
        same = all(torch.equal(values, got[key]) for key, values in _expected(name).items())
        require(same, "other weights")


FAMILIES = [Family("resuming", _whole, _changed, _open, share=0.1)]
