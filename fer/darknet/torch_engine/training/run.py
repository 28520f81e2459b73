"""Training a Darknet net in torch: the program's run folder, weights and scores, without the program."""

import logging
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from fer.darknet.formats.cfg import parse, task_of
from fer.darknet.formats.photo_folder import DarknetData
from fer.darknet.formats.run_folder import judged_by, lay_out
from fer.darknet.formats.weights import Net, find_cfg
from fer.darknet.program_engine.log import Step
from fer.darknet.program_engine.training import (
    METRIC,
    facts_of,
    fitted_to,
    introduce,
    open_data,
    open_sections,
    require_room,
    tell,
)
from fer.darknet.program_engine.transfer import iteration_of, resumed
from fer.darknet.runs.monitor import Monitor
from fer.darknet.runs.scorer import Scorer, take_along
from fer.darknet.torch_engine import scores as native
from fer.darknet.torch_engine.network import summary
from fer.darknet.torch_engine.training.batches import labels_of, read_list
from fer.darknet.torch_engine.training.module import DarknetTraining
from fer.darknet.torch_engine.weights_io import load_weights, save_weights
from fer.errors import InputError
from fer.system.distributed import naming_lost_ranks, require_one_group
from fer.system.instantiate import build
from fer.system.memory import keep_freed_memory
from fer.training.stopping import StopCleanly

#: Iterations between two saves, as in the programs.
SAVE_EVERY = 100


def train(config: dict[str, Any], out: Path) -> float:
    """Train a checked config with darknet.engine=torch (`fer.darknet.config`), all under ``out``.

    Returns the best score of the validation split: top-1 or mAP@0.50, a fraction; 0 when none was taken.

    Raises:
        InputError: a wrong option, a file that is missing or does not fit, or a loss that stays NaN.
        Stopped: SIGINT or SIGTERM came; backup/BASE_last.ckpt resumes.
    """
    for package in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "The '.*dataloader' does not have many workers")
    # Lightning's own use of torch
    warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated")
    keep_freed_memory()
    options = config["darknet"]
    sections, name = open_sections(options)
    task = task_of(sections)
    data = open_data(config, task)
    sections = fitted_to(sections, options, data)
    net = Net(out / "backup" / f"{name}.weights", out / f"{name}.cfg", data.names, sections, task)
    pl.seed_everything(config["seed"], verbose=False)
    photos = read_list(data.lists["train"])
    module = DarknetTraining(sections, photos, data.names, config["seed"], config["num_workers"])
    before = _start(module, config, name)
    max_batches = int(sections[0].options["max_batches"])
    if module.iteration >= max_batches:
        raise InputError(
            f"{config['resume']} has {module.iteration:,} iterations and darknet.max_batches={max_batches:,}: raise it"
        )
    recorder = Recorder(net, data, options)
    stop = _Stop(recorder)
    wanted = {key: value for key, value in config["trainer"].items() if key != "enable_progress_bar"}
    trainer = build(
        {"_target_": "pytorch_lightning.Trainer", **wanted},
        max_epochs=1,
        accumulate_grad_batches=module.subdivisions,
        callbacks=[recorder, stop],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=str(out),
    )
    require_one_group(trainer)
    module.require_divisible(trainer.world_size)
    if not trainer.is_global_zero:
        with stop.watching(), naming_lost_ranks(trainer, recorder.last):
            trainer.fit(module)
        return 0.0
    require_room(out, sections, 8)
    lay_out(out, name, sections, data, facts_of(config, "torch", data, name))
    (out / "layers.txt").write_text(f"{summary(sections)}\n")
    if before:
        take_along(before, net.weights)
    where = f"{trainer.world_size} x {trainer.strategy.root_device.type}, {config['trainer']['precision']}"
    introduce(f"torch on {where}", net, data, max_batches, out)
    shown = config["trainer"].get("enable_progress_bar", True)
    recorder.begin(Monitor(out, sections, max_batches, module.iteration, METRIC[task], shown), module.iteration)
    try:
        with stop.watching(), naming_lost_ranks(trainer, recorder.last):
            trainer.fit(module)
    finally:
        recorder.monitor.close()
    return tell(out, net, recorder.monitor, data, " darknet.engine=torch")


class Recorder(pl.Callback):
    """Tells a `Monitor` of each iteration, and saves and scores weights as a run of the program does.

    BASE_last.weights and BASE_last.ckpt each 100 iterations and at the end, then also BASE_final.weights; the best
    scored as BASE_best.weights; with ema_alpha= the average as BASE_ema.weights. All is done by the first rank, on its
    device.

    Raises:
        InputError: checkpoints are to be scored, which `fer.darknet.torch_engine.scores` cannot do with such a net.
    """

    def __init__(self, net: Net, data: DarknetData, options: dict[str, Any]) -> None:
        self.monitor: Monitor | None = None
        self._net, self._data = net, data
        self._wanted = options["map"] if net.task == "detector" else options["topk"]
        if self._wanted:
            native.require_scored(net)
        self._device = "auto"
        self._batch = int(net.sections[0].options["batch"])
        self._most = int(net.sections[0].options["max_batches"])
        self._average: float | None = None
        self._clock = time.perf_counter()
        self._scorer: Scorer | None = None
        self._every = max(SAVE_EVERY, data.photos["train"] // self._batch)

    def begin(self, monitor: Monitor, iteration: int) -> None:
        """Take where to tell it and the iteration that the run starts at."""
        self.monitor = monitor
        if self._wanted:
            metric = METRIC[self._net.task]
            self._scorer = Scorer(self._net, self._every, metric, self._measure, monitor.score, iteration)

    @property
    def last(self) -> Path:
        """The checkpoint that a run goes on from."""
        return self._net.weights.with_name(f"{self._net.weights.stem}_last.ckpt")

    def on_train_start(self, trainer: pl.Trainer, pl_module: DarknetTraining) -> None:
        self._device = str(trainer.strategy.root_device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: DarknetTraining, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % pl_module.subdivisions:
            return
        now, iteration = time.perf_counter(), pl_module.iteration
        seconds, self._clock = now - self._clock, now
        if trainer.is_global_zero:
            loss = pl_module.loss
            self._average = loss if self._average is None else 0.9 * self._average + 0.1 * loss
            rate = pl_module.rate(iteration)
            step = Step(iteration, loss, self._average, rate, seconds, iteration * self._batch)
            self.monitor.step(step, {f"train/{name}": value for name, value in pl_module.statistics.items()})
        if iteration % SAVE_EVERY == 0 or iteration == self._most:
            self.save(trainer, pl_module)
            if trainer.is_global_zero and self._scorer:
                self._scorer.score_newest(1 if iteration == self._most else self._every)
            trainer.strategy.barrier()
            self._clock = time.perf_counter()

    def save(self, trainer: pl.Trainer, module: DarknetTraining) -> None:
        """Write the weights and the checkpoint of now.

        Raises:
            InputError: weights are not finite, which nothing cures; what was saved before them stays.
        """
        if not trainer.is_global_zero:
            return
        if not all(values.isfinite().all() for values in module.network.state_dict().values()):
            before = f"; go on from {self.last}, which is from before" if self.last.is_file() else ""
            raise InputError(
                f"iteration {module.iteration:,}: weights are no longer finite and are not saved: lower "
                f"darknet.learning_rate or raise darknet.burn_in{before}"
            )
        # the .ckpt last: scores that name it are those of the .weights beside it
        names = ["last", *(["final"] if module.iteration == self._most else [])]
        for name in names:
            save_weights(module.network, self._named(name), module.iteration * self._batch)
        if module.average and module.average.values:
            with module.average.in_place():
                save_weights(module.network, self._named("ema"), module.iteration * self._batch)
        module.save_state(self.last)

    def _named(self, name: str) -> Path:
        return self._net.weights.with_name(f"{self._net.weights.stem}_{name}.weights")

    def _measure(self, checkpoint: Net) -> dict[str, float]:
        photos = self._data.lists[judged_by(self._data)]
        if checkpoint.task == "detector":
            scores = native.detector_map(checkpoint, checkpoint.names, photos, self._device)
            return {"val/map50": scores["map50"]} | {f"val/ap/{row['name']}": row["ap"] for row in scores["per_class"]}
        listed = read_list(photos)
        ranks = native.classify(checkpoint, [Path(photo) for photo in listed], self._device).argsort(1)[:, ::-1]
        right = ranks == labels_of(listed, checkpoint.names)[:, None]
        k = min(5, len(checkpoint.names))
        return {"val/top1": float(right[:, 0].mean()), f"val/top{k}": float(right[:, :k].any(1).mean())}


class _Stop(StopCleanly):
    """Stops between two iterations, with the weights saved."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder.last.parent)
        self._path, self._recorder = recorder.last, recorder

    def save(self, trainer: pl.Trainer) -> None:
        self._recorder.save(trainer, trainer.lightning_module)


def _start(module: DarknetTraining, config: dict[str, Any], name: str) -> Path | None:
    """Fill the network from what the config names, and return backup/BASE.weights of the run that is resumed."""
    options, sections = config["darknet"], module.network.sections
    if not config["resume"]:
        _pretrained(module, options)
        return None
    path = Path(config["resume"])
    if path.is_dir():
        folder = path / "backup" if (path / "backup").is_dir() else path
        saved = folder / f"{name}_last.ckpt"
        path = saved if saved.is_file() and not options["clear"] else resumed(config["resume"], name, sections)
    if path.suffix == ".ckpt":
        if options["clear"]:
            raise InputError(f"darknet.clear=true counts anew from .weights: give those beside {path}")
        module.load_state(path)
    else:
        path = resumed(str(path), name, sections)
        load_weights(module.network, path)
        if options["clear"]:
            return None
        module.iteration = iteration_of(path, sections)
    return path.with_name(f"{name}.weights")


def _pretrained(module: DarknetTraining, options: dict[str, Any]) -> None:
    first = options["pretrained_layers"]
    if not options["pretrained"]:
        if first:
            raise InputError("darknet.pretrained_layers needs darknet.pretrained=FILE.weights, which it cuts")
        return
    source = Path(options["pretrained"])
    if not source.is_file():
        raise InputError(f"darknet.pretrained={source}: no such file")
    if first is None:
        load_weights(module.network, source)
        return
    cfg = Path(options["pretrained_cfg"]) if options["pretrained_cfg"] else find_cfg(source, "darknet.pretrained_cfg")
    if not cfg.is_file():
        raise InputError(f"darknet.pretrained_cfg={cfg}: no such file")
    load_weights(module.network, source, first, parse(cfg.read_text(errors="replace"), str(cfg)))
