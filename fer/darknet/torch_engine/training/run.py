"""Training a Darknet net in torch: the program's run folder, weights and scores, without the program."""

import logging
import warnings
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl

from fer.blame import named
from fer.darknet.formats.cfg import read_cfg, task_of
from fer.darknet.formats.photo_folder import read_list
from fer.darknet.formats.run_folder import lay_out
from fer.darknet.formats.weights import Net, backup_folder, find_resume_weights, saved_iteration
from fer.darknet.runs.monitor import Monitor
from fer.darknet.runs.scorer import take_along
from fer.darknet.runs.setup import (
    METRIC,
    fit_to_data,
    open_dataset,
    pretrained_cfg,
    pretrained_source,
    read_sections,
    require_disk_space,
    run_facts,
)
from fer.darknet.runs.summary import note_result, print_results, print_start
from fer.darknet.torch_engine.network import summary
from fer.darknet.torch_engine.training.checkpoints import Checkpoints
from fer.darknet.torch_engine.training.module import DarknetTraining
from fer.darknet.torch_engine.training.recorder import Recorder
from fer.darknet.torch_engine.weights_io import load_weights
from fer.errors import InputError
from fer.runs.record import recorded
from fer.system.device import with_precision
from fer.system.distributed import naming_lost_ranks, require_one_group
from fer.system.memory import keep_freed_memory
from fer.targets import build
from fer.training.stopping import StopCleanly


@recorded
def train(config: dict[str, Any], out: Path) -> float:
    """Train a checked config with darknet.engine=torch (`fer.darknet.config`), all under ``out``.

    Returns the best score of the validation split: top-1 or mAP@0.50, a fraction; 0 when none was taken.

    Raises:
        InputError: a wrong option, a file that is missing or does not fit, or a loss that stays NaN.
        Stopped: SIGINT or SIGTERM came; backup/BASE_last.ckpt resumes.
    """
    _quiet_lightning()
    keep_freed_memory()
    arguments, chosen = with_precision(config["trainer"])
    config, options = config | {"trainer": arguments}, config["darknet"]
    sections, name = read_sections(options)
    task = task_of(sections)
    data = open_dataset(config, task, out)
    sections = fit_to_data(sections, options, data)
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
    stop = _Stop(recorder.checkpoints)
    trainer = _trainer(config, module.subdivisions, [recorder, stop], out)
    require_one_group(trainer)
    module.require_divisible(trainer.world_size)
    if not trainer.is_global_zero:
        _fit(trainer, module, stop)
        return 0.0
    require_disk_space(out, sections, 8)
    lay_out(out, name, sections, data, run_facts(config, "torch", data, name))
    (out / "layers.txt").write_text(f"{summary(sections)}\n")
    if chosen:
        print(chosen)
    if before:
        take_along(before, net.weights)
    where = f"{trainer.world_size} x {trainer.strategy.root_device.type}, {config['trainer']['precision']}"
    print_start(f"torch on {where}", net, data, max_batches, out, module.iteration, options)
    bar = config["trainer"].get("enable_progress_bar", True)
    monitor = Monitor(out, sections, max_batches, module.iteration, METRIC[task], bar, config)
    recorder.begin(monitor, module.iteration)
    try:
        _fit(trainer, module, stop)
    finally:
        monitor.close()
        note_result(out, net, monitor)
    return print_results(out, net, monitor, data, " darknet.engine=torch")


def _quiet_lightning() -> None:
    for package in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "The '.*dataloader' does not have many workers")
    # Lightning's own use of torch
    warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated")


def _trainer(config: dict[str, Any], subdivisions: int, callbacks: list[pl.Callback], out: Path) -> pl.Trainer:
    """Return Lightning's trainer, which shows, saves and validates nothing: the callbacks do."""
    options = {key: value for key, value in config["trainer"].items() if key != "enable_progress_bar"}
    return build(
        {"_target_": "pytorch_lightning.Trainer", **options},
        max_epochs=1,
        accumulate_grad_batches=subdivisions,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=str(out),
    )


class _Stop(StopCleanly):
    """Stops between two iterations, with the weights saved."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        super().__init__(checkpoints.last.parent)
        self._path, self.checkpoints = checkpoints.last, checkpoints

    def save(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            self.checkpoints.save(cast(DarknetTraining, trainer.lightning_module))


def _fit(trainer: pl.Trainer, module: DarknetTraining, stop: _Stop) -> None:
    try:
        with stop.watching(), naming_lost_ranks(trainer, stop.checkpoints.last):
            trainer.fit(module)
    except Exception as error:
        # of a process that loads photos
        if line := named(error, {}):
            raise line from error
        raise


def _start(module: DarknetTraining, config: dict[str, Any], name: str) -> Path | None:
    """Fill the network from what the config names, and return backup/BASE.weights of the run that is resumed."""
    options, sections = config["darknet"], module.network.sections
    if not config["resume"]:
        _load_pretrained(module, options)
        return None
    path = Path(config["resume"])
    if path.is_dir():
        saved = backup_folder(path) / f"{name}_last.ckpt"
        on_weights = options["clear"] or not saved.is_file()
        path = find_resume_weights(config["resume"], name, sections) if on_weights else saved
    if path.suffix == ".ckpt":
        if options["clear"]:
            raise InputError(f"darknet.clear=true counts anew from .weights: give those beside {path}")
        module.load_state(path)
    else:
        path = find_resume_weights(str(path), name, sections)
        load_weights(module.network, path)
        if options["clear"]:
            return None
        module.iteration = saved_iteration(path, sections)
    return path.with_name(f"{name}.weights")


def _load_pretrained(module: DarknetTraining, options: dict[str, Any]) -> None:
    source, first = pretrained_source(options), options["pretrained_layers"]
    if source is None:
        if module.frozen:
            raise InputError("stopbackward=1 leaves the layers before it as they are: set darknet.pretrained=FILE")
        return
    if first is None:
        load_weights(module.network, source)
        return
    cfg = pretrained_cfg(options, source)
    load_weights(module.network, source, first, read_cfg(cfg))
