"""One training run: from a checked config and a folder to checkpoints, TensorBoard logs and numbers."""

import logging
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, Timer
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.model_helpers import is_overridden

from fer.blame import named
from fer.data.loading.contract import build_module, counts_of, identities_of, is_drawn, labels_of, rows_of
from fer.data.loading.datamodule import FaceDataModule
from fer.data.preparation.prepare import prepare
from fer.data.preparation.summary import command_for, describe, drawn_otherwise
from fer.data.storage.hdf5 import StoreInfo, fingerprint
from fer.errors import InputError
from fer.evaluation.figures import curves_figure
from fer.models.checkpoint import load_checkpoint
from fer.models.networks import parameters
from fer.models.registry import packages_to_trust
from fer.runs.record import note, recorded
from fer.system.command import command
from fer.system.device import with_precision
from fer.system.distributed import naming_lost_ranks, require_one_group, started_ranks
from fer.system.files import claiming
from fer.system.memory import keep_freed_memory
from fer.system.words import amount
from fer.targets import build, locate, takes
from fer.training.callbacks import EMA, Bar, Best, HParams, Running, Speed
from fer.training.checkpoint_io import WholeCheckpoints
from fer.training.divergence import StopWhenNotFinite
from fer.training.loggers import begin, build_loggers, finish
from fer.training.losses import require_targets
from fer.training.module import ClassifierModule
from fer.training.pictures import Pictures
from fer.training.resuming import require_resumable
from fer.training.sam import SAM
from fer.training.stopping import EarlyStop, StopCleanly
from fer.training.transfer import load_teachers, require_same_model, start_from


@recorded
def train(config: dict[str, Any], out: Path) -> dict[str, float]:
    """Train a checked config (see `check_train`) and write checkpoints, logs and curves under ``out``.

    Returns ``val/acc`` of the best epoch by it, with data.folds of the last one, and the number of the network's
    ``parameters``.

    Raises:
        InputError: the prepared file is missing or does not fit the config, or a checkpoint does not fit the file.
        Stopped: SIGINT or SIGTERM came; ``checkpoints/interrupted.ckpt`` resumes.
        RankLost: another process of the run ended or does not answer; ``checkpoints/last.ckpt`` resumes.
    """
    _, chosen = with_precision(config["trainer"])
    trainer, module, data, resume = assemble(config, out)
    if trainer.is_global_zero:
        note(out, data=_identified(data, config["data"]))
        if chosen:
            print(chosen)
        print(
            f"{module.classifier.name}: {parameters(module.net):,} parameters{_frozen(module, config)}; "
            + _place(config["data"])
            + _counted(data)
            + (" (drawn sample data)" if is_drawn(data) else "")
            + f"; run folder {out}"
        )
        if isinstance(data, FaceDataModule):
            if otherwise := drawn_otherwise(config["data"], data.info.made_by, data.info.path):
                print(otherwise)
        if same := config["trainer"].get("overfit_batches"):
            print(f"trainer.overfit_batches={same}: every epoch has the same few training batches; no score means much")
    # Lightning sets them without declaring them
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    stop = next(callback for callback in callbacks if isinstance(callback, StopCleanly))
    best = next(callback for callback in callbacks if isinstance(callback, Best))
    # the folder of the first rank, which is not that of this machine's
    last = Path(best.dirpath or ".") / "last.ckpt"
    try:
        if trainer.is_global_zero:
            begin(trainer.loggers)
        with stop.watching(), naming_lost_ranks(trainer, last):
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    except Exception as error:
        parts, makers = _parts(config, trainer, module, data)
        if line := named(error, parts, makers):
            raise line from error
        if isinstance(error, MisconfigurationException):
            # such as a schedule's monitor that no callback has logged
            raise InputError(" ".join(str(error).split())) from error
        raise
    finally:
        if trainer.is_global_zero:
            finish(trainer.loggers)
        if trainer.is_global_zero and best.scores:
            note(out, result={"scores": best.scores, "epoch": best.epoch, "parameters": parameters(module.net)})
    if best.best_model_score is None:
        raise InputError(f"no epoch was validated, so there is no best one; the run's checkpoints are in {last.parent}")
    # the best epoch would be chosen on the fold that it is scored on
    folds = bool(_folds(config["data"]))
    score = float(trainer.callback_metrics["val/acc"] if folds else best.best_model_score)
    if trainer.is_global_zero:
        _conclude(config, out, is_drawn(data), str(last) if folds else best.best_model_path, score)
    return {"val/acc": score, "parameters": float(parameters(module.net))}


def _frozen(module: ClassifierModule, config: dict[str, Any]) -> str:
    if not len(module.freezing):
        return ""
    until = "" if config["unfreeze_epoch"] is None else f" for {amount(config['unfreeze_epoch'], 'epoch')}"
    return f", {len(module.freezing):,} of them frozen{until}"


def _identified(data: pl.LightningDataModule, config: dict[str, Any]) -> dict[str, str]:
    """Return what run.json says of the data."""
    if isinstance(data, FaceDataModule):
        return {"file": str(data.info.path.absolute()), "fingerprint": fingerprint(data.info)}
    return {"module": config["_target_"]}


def _place(data: dict[str, Any]) -> str:
    """Return what messages call the data: the prepared file, or the user's module."""
    return str(Path(data["file"])) if "_target_" not in data else data["_target_"]


def _counted(data: pl.LightningDataModule) -> str:
    numbers = [(rows_of(data, split), split) for split in ("train", "val")]
    known = ", ".join(f"{n:,} {split}" for n, split in numbers if n is not None)
    return f": {known}" if known else ""


def _folds(data: dict[str, Any]) -> int | str | None:
    """Return the folds that prepared rows are divided into; an argument of that name of a user's module is its own."""
    return None if "_target_" in data else data["folds"]


def _conclude(config: dict[str, Any], out: Path, drawn: bool, best: str, score: float) -> None:
    """Draw the curves of a run and say where everything is."""
    numbers = out / "metrics" / "metrics.csv"
    if not numbers.is_file():
        raise InputError(
            f"resume={config['resume']}: nothing is left to train, its run has reached "
            f"trainer.max_epochs={config['trainer']['max_epochs']} or another end; give more"
        )
    title = config["name"] + (" (drawn sample data)" if drawn else "")
    curves_figure(pd.read_csv(numbers), title).savefig(out / "curves.png", dpi=100)
    folds = _folds(config["data"])
    own = packages_to_trust(config["model"])
    trust = f" trust=[{','.join(own)}]" if own else ""
    if folds:
        print(f"val/acc of the last epoch {score:.4f}: {best}")
    else:
        print(f"best val/acc {score:.4f}: {best}")
    print(f"curves: {out / 'curves.png'}")
    if any(target["_target_"].endswith(".TensorBoardLogger") for target in config["logger"].values()):
        print(f"TensorBoard: tensorboard --logdir {out}")
    if folds:
        print(f"score all folds together: {command('evaluate')} folds={out.parent}{trust}")
    elif "_target_" in config["data"]:
        print(f"score it on a prepared file: {command('evaluate')} ckpt={best} data=NAME{trust}")
    else:
        print(f"score it: {command('evaluate')} ckpt={best}{trust}")


def assemble(
    config: dict[str, Any], out: Path
) -> tuple[pl.Trainer, ClassifierModule, pl.LightningDataModule, str | None]:
    """Build trainer, module and data of a checked config; the last item is the checkpoint to resume from, if any."""
    _quiet(own_data="_target_" not in config["data"])
    keep_freed_memory()
    config = config | {"trainer": with_precision(config["trainer"])[0]}
    if "_target_" not in config["data"]:
        _require_file(config["data"])
    pl.seed_everything(config["seed"], verbose=False)
    data = _open_data(config)
    module = _build_module(config, data)
    _take_weights(config, module)
    trainer = _build_trainer(config, out)
    if config["resume"]:
        said = require_resumable(config, trainer, module)
        if trainer.is_global_zero:
            print(said)
    _require_divisible(config, data, trainer)
    return trainer, module, data, config["resume"]


def _open_data(config: dict[str, Any]) -> pl.LightningDataModule:
    if "_target_" in config["data"]:
        return build_module(config["data"], **{key: config[key] for key in ("batch_size", "seed", "num_workers")})
    data = FaceDataModule(
        config["data"]["file"],
        config["batch_size"],
        config["seed"],
        config["num_workers"],
        keep=config["data"]["keep"],
        sampler=config["recipe"]["sampler"],
        votes=config["recipe"]["votes"],
        shards=config["data"]["shards"],
        folds=config["data"]["folds"],
        fold=config["data"]["fold"],
        fold_seed=config["data"]["seed"],
        fixed=bool(config["trainer"].get("overfit_batches")),
    )
    _require_same_faces(config["data"], data.info)
    return data


def _build_module(config: dict[str, Any], data: pl.LightningDataModule) -> ClassifierModule:
    """Return what is trained, with fresh weights, and with its teachers."""
    module = ClassifierModule(
        model=config["model"],
        labels=labels_of(data),
        face={key: config["data"][key] for key in ("size", "color", "margin")},
        augment=config["augment"],
        recipe=config["recipe"],
        loss=config["loss"],
        optimizer=config["optimizer"],
        schedule=config["schedule"],
        epochs=config["trainer"]["max_epochs"],
        seed=config["seed"],
        counts=_counts(config["loss"]["_target_"], data),
        param_groups=config["param_groups"],
        freeze=config["freeze"],
        unfreeze_epoch=config["unfreeze_epoch"],
        data=_described(config["data"], is_drawn(data)),
    )
    recipe = config["recipe"]
    soft, mixed = recipe["votes"] == "soft", recipe["mix"] > 0
    # a data module of the user's may give either
    labels = "_target_" not in config["data"] and not soft and recipe["mix"] < 1
    require_targets(module.loss, len(labels_of(data)), config["batch_size"], labels, soft or mixed)
    if config["channels_last"]:
        module.net.to(memory_format=torch.channels_last)
    if config["compile"]:
        # in place, which leaves the names of the weights as they are
        module.net.compile()
    module.classifier.identities = identities_of(data)
    if config["recipe"]["teachers"]:
        module.teachers = load_teachers(config["recipe"], module.classifier)
    return module


def _described(data: dict[str, Any], drawn: bool) -> dict[str, Any]:
    """Return what a checkpoint says of its data; of a fold also which one, for `evaluate folds=`."""
    if "_target_" in data:
        return {"name": data["name"], "file": "", "drawn": drawn, "module": data["_target_"]}
    division = {"folds": data["folds"], "fold": data["fold"], "seed": data["seed"]} if data["folds"] else {}
    return {"name": data["name"], "file": data["file"], "drawn": drawn} | division


def _take_weights(config: dict[str, Any], module: ClassifierModule) -> None:
    """Check the checkpoint that a run goes on from, which the trainer loads, or start from the one of ``init``."""
    if config["resume"]:
        require_same_model(load_checkpoint(config["resume"]), module.classifier, config)
    elif config["init"]:
        start_from(module.classifier, config["init"])


def _build_trainer(config: dict[str, Any], out: Path) -> pl.Trainer:
    settings, own_data = dict(config["trainer"]), "_target_" not in config["data"]
    if own_data and (same := settings.pop("overfit_batches", 0)):
        # Lightning would replace our order of the faces; the data module keeps it the same
        settings |= {"limit_train_batches": same, "limit_val_batches": same}
    ours = _callbacks(config, out)
    users = _users_callbacks(config["callbacks"], ours)
    trainer: pl.Trainer = build(
        settings,
        "trainer",
        default_root_dir=str(out),
        logger=build_loggers(config["logger"], out),
        callbacks=[*ours, *users.values()],
        plugins=[WholeCheckpoints()],
        # of ours each batch is divided; to loaders of the user's Lightning gives a sampler that divides the rows
        use_distributed_sampler=not own_data,
        log_every_n_steps=1,
    )
    # for `_parts`, as a function may make a callback of any class
    trainer.users_callbacks = users  # type: ignore[attr-defined]
    require_one_group(trainer)
    return trainer


def _require_divisible(config: dict[str, Any], data: pl.LightningDataModule, trainer: pl.Trainer) -> None:
    for split in ("train", "val"):
        if (rows := rows_of(data, split)) is not None and rows < trainer.world_size:
            raise InputError(f"{_place(config['data'])}: {rows} {split} rows for {trainer.world_size} devices")
    if config["batch_size"] % trainer.world_size:
        raise InputError(
            f"batch_size={config['batch_size']} is the global batch and does not divide by {trainer.world_size} devices"
        )


def _counts(loss: str, data: pl.LightningDataModule) -> list[int] | None:
    """Return the training faces of each class, or None where the loss does not take them or the data do not tell."""
    if not takes(loss, ["counts"]):
        return None
    return counts_of(data)


def _quiet(own_data: bool) -> None:
    """Leave out what Lightning tells of itself: its devices, other products, remedies that do not apply here."""
    for package in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    # says which rank was lost before it ends the first one
    logging.getLogger("lightning_fabric.strategies.launchers.subprocess_script").setLevel(logging.INFO)
    for message in (
        "The '.*dataloader' does not have many workers",  # the split is in memory
        "The dirpath has changed",  # a resumed run writes into its own folder
        "`isinstance.treespec, LeafSpec.` is deprecated",  # Lightning's own use of torch
        # our data module goes on where it was
        *(["You're resuming from a checkpoint that ended before the epoch ended"] if own_data else []),
    ):
        warnings.filterwarnings("ignore", message)


def _callbacks(config: dict[str, Any], out: Path) -> list[Callback]:
    folder = out / "checkpoints"
    # save_last of the other one would keep the last best epoch, not the last epoch
    last = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    callbacks: list[Callback] = [
        StopWhenNotFinite(last, config["resume"]),
        Best(folder, config["resume"]),
        last,
        StopCleanly(folder),
        Speed(config["batch_size"] if config["bare_step"] else None, config["compile"]),
        Running(),
        Pictures(),
        HParams(config),
    ]
    if config["recipe"]["ema"] is not None:
        # first, so that best.ckpt and the pictures are of the averaged weights
        callbacks.insert(0, EMA(config["recipe"]["ema"]))
    if config["trainer"].get("enable_progress_bar", True):
        callbacks.append(Bar(refresh_rate=10))
    if config["early_stop"] is not None:
        callbacks.append(EarlyStop(config["early_stop"]))
    if (limit := config["trainer"].get("max_time")) is not None:
        try:
            # Lightning's own ends within an epoch, and a resumed run would leave out the rest of it and its validation
            callbacks.append(Timer(limit, interval="epoch", verbose=False))
        except MisconfigurationException as error:
            raise InputError(f"trainer.max_time={limit}: not a time DD:HH:MM:SS, such as 00:12:00:00") from error
    return callbacks


def _users_callbacks(config: dict[str, Any], ours: list[Callback]) -> dict[str, Callback]:
    """Build those that the config names, by their names; of all of them a checkpoint can keep the state."""
    kept = {callback.state_key: "the program's own" for callback in ours}
    built = {}
    for name, target in config.items():
        callback = build(target, f"callbacks.{name}")
        other = kept.setdefault(callback.state_key, f"callbacks.{name}")
        if other != f"callbacks.{name}" and is_overridden("state_dict", callback):
            raise InputError(
                f"callbacks.{name}: a {type(callback).__name__} beside {other} that watches the same, of which a "
                "checkpoint keeps the state of one only: leave one out"
            )
        built[name] = callback
    return built


def _parts(
    config: dict[str, Any], trainer: pl.Trainer, module: ClassifierModule, data: pl.LightningDataModule
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parts of a run by the keys that chose them, and what made them; without parts of ours."""
    # SAM takes the steps of another one
    optimizer = next(iter(trainer.optimizers), None)
    optimizer = optimizer.base if isinstance(optimizer, SAM) else optimizer
    scheduler = next((each.scheduler for each in trainer.strategy.lr_scheduler_configs), None)
    parts = {
        "model": module.net.network, "loss": module.loss, "augment": module.augment.module, "data": data,
        "optimizer": optimizer, "schedule": scheduler,
    }  # fmt: skip
    targets = {key: str(config[key].get("_target_", "fer.")) for key in parts}
    # set by `_build_trainer`
    for name, callback in trainer.users_callbacks.items():  # type: ignore[attr-defined]
        parts[f"callbacks.{name}"], targets[f"callbacks.{name}"] = callback, config["callbacks"][name]["_target_"]
    for (name, target), logger in zip(config["logger"].items(), trainer.loggers, strict=False):
        parts[f"logger.{name}"], targets[f"logger.{name}"] = logger, target["_target_"]
    own = {key: part for key, part in parts.items() if part is not None and not targets[key].startswith("fer.")}
    return own, {key: locate(targets[key]) for key in own}


def _require_file(data: dict[str, Any]) -> None:
    if Path(data["file"]).exists():
        return
    if data["name"] != "sample":
        raise InputError(
            f"{data['file']}: no such file; make it with `{command_for(data)}`, "
            f"or try `{command('train')} experiment=demo`, which needs no data"
        )
    if started_ranks() > 1:
        # each of them would draw it
        raise InputError(f"{data['file']}: no such file; make it first with `{command_for(data)}`")
    print(f"{data['file']} is not there yet: drawing it")
    with claiming(Path(data["file"]), "wait for it to end"):
        print(describe(prepare(data, Path(data["file"]))))


def _require_same_faces(data: dict[str, Any], info: StoreInfo) -> None:
    for key in ("size", "color", "margin"):
        if data[key] != (prepared := getattr(info.face, key)):
            raise InputError(
                f"data.{key}={data[key]}, but {info.path} was prepared with {prepared}; set data.{key}={prepared}"
            )
