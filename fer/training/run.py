"""One training run: from a checked config and a folder to checkpoints, TensorBoard logs and numbers."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, Timer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from fer.config.checks import build
from fer.data.loading.datamodule import FaceDataModule
from fer.data.preparation.prepare import prepare
from fer.data.preparation.summary import command_for, describe
from fer.data.storage.hdf5 import StoreInfo, read_column
from fer.errors import InputError
from fer.evaluation.report import curves_figure
from fer.labels import require_same
from fer.models.checkpoint import WholeCheckpoints, inherit, load_checkpoint
from fer.system.distributed import naming_lost_ranks, require_one_group, started_ranks
from fer.system.memory import keep_freed_memory
from fer.training.callbacks import EMA, Bar, Best, Pictures, Speed, StopCleanly
from fer.training.distillation import Teachers
from fer.training.module import EmotionClassifier, parameters


def train(config: dict[str, Any], out: Path) -> dict[str, float]:
    """Train a checked config (see `check_train`) and write checkpoints, logs and curves under ``out``.

    Returns the numbers of the best epoch by ``val/acc``: ``val/acc``, ``epoch`` and the parameters' count.

    Raises:
        InputError: the prepared file is missing or does not fit the config, or a checkpoint does not fit the file.
        Stopped: SIGINT or SIGTERM came; ``checkpoints/interrupted.ckpt`` resumes.
        RankLost: another process of the run ended or does not answer; ``checkpoints/last.ckpt`` resumes.
    """
    trainer, model, data, resume = assemble(config, out)
    if trainer.is_global_zero:
        print(
            f"{config['model']['name']}: {parameters(model):,} parameters; {data.info.path}: "
            f"{data.info.rows('train'):,} train, {data.info.rows('val'):,} val"
            + (" (drawn sample data)" if data.info.drawn else "")
            + f"; run folder {out}"
        )
    stop = next(callback for callback in trainer.callbacks if isinstance(callback, StopCleanly))
    # the folder of the first rank, which is not that of this machine's
    last = Path(trainer.checkpoint_callback.dirpath or ".") / "last.ckpt"
    with stop.watching(), naming_lost_ranks(trainer, last):
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
    best = trainer.checkpoint_callback
    if best.best_model_score is None:
        raise InputError(f"no epoch was validated, so there is no best one; the run's checkpoints are in {last.parent}")
    score = float(best.best_model_score)
    if trainer.is_global_zero:
        numbers = out / "metrics" / "metrics.csv"
        if not numbers.is_file():
            raise InputError(
                f"resume={resume}: nothing is left to train, its run has reached "
                f"trainer.max_epochs={config['trainer']['max_epochs']} or another end; give more"
            )
        history = pd.read_csv(numbers)
        title = config["name"] + (" (drawn sample data)" if data.info.drawn else "")
        curves_figure(history, title).savefig(out / "curves.png", dpi=100)
        print(f"best val/acc {score:.4f}: {best.best_model_path}")
        print(f"curves: {out / 'curves.png'}")
        print(f"TensorBoard: tensorboard --logdir {out}")
        print(f"score it: python evaluate.py ckpt={best.best_model_path}")
    return {"val/acc": score, "parameters": float(parameters(model))}


def assemble(config: dict[str, Any], out: Path) -> tuple[pl.Trainer, EmotionClassifier, FaceDataModule, str | None]:
    """Build the trainer, the model and the data of a checked config; the last item is the checkpoint to resume from."""
    _quiet()
    keep_freed_memory()
    _require_file(config["data"])
    pl.seed_everything(config["seed"], verbose=False)
    data = FaceDataModule(
        config["data"]["file"],
        config["batch_size"],
        config["seed"],
        config["num_workers"],
        keep=config["data"]["keep"],
        sampler=config["recipe"]["sampler"],
        votes=config["recipe"]["votes"],
        shards=config["data"]["shards"],
    )
    _require_same_faces(config["data"], data.info)
    model = EmotionClassifier(
        model=config["model"],
        labels=list(data.info.class_names),
        face={"size": data.info.face.size, "color": data.info.face.color, "margin": data.info.face.margin},
        augment=config["augment"],
        recipe=config["recipe"],
        optimizer=config["optimizer"],
        schedule=config["schedule"],
        epochs=config["trainer"]["max_epochs"],
        seed=config["seed"],
        counts=_counts(config["recipe"], data),
        data={"name": config["data"]["name"], "file": config["data"]["file"], "drawn": data.info.drawn},
    )
    if config["channels_last"]:
        model.net.to(memory_format=torch.channels_last)
    if config["compile"]:
        # in place, which leaves the names of the weights as they are
        model.net.compile()
    model.identities = data.identities()
    if config["recipe"]["teachers"]:
        model.teachers = _load_teachers(config["recipe"], model)
    if config["resume"]:
        _require_same_model(load_checkpoint(config["resume"]), model, config)
    elif config["init"]:
        start_from(model, config["init"])
    trainer = build(
        config["trainer"],
        default_root_dir=str(out),
        logger=[
            TensorBoardLogger(out, name="", version="tensorboard", default_hp_metric=False),
            CSVLogger(out, name="", version="metrics"),
        ],
        callbacks=_callbacks(config, out),
        plugins=[WholeCheckpoints()],
        use_distributed_sampler=False,
        log_every_n_steps=1,
    )
    require_one_group(trainer)
    for split in ("train", "val"):
        if (rows := data.info.rows(split)) < trainer.world_size:
            raise InputError(f"{data.info.path}: {rows} {split} rows for {trainer.world_size} devices")
    if config["batch_size"] % trainer.world_size:
        raise InputError(
            f"batch_size={config['batch_size']} is the global batch and does not divide by {trainer.world_size} devices"
        )
    return trainer, model, data, config["resume"]


def start_from(model: EmotionClassifier, checkpoint: str) -> None:
    """Copy the weights of a checkpoint, weight file or shipped network's name into the model.

    The last layer keeps its fresh ones where the classes differ.

    Raises:
        InputError: a weight other than the last layer's has another shape or name: it is another network.
    """
    source = load_checkpoint(checkpoint)
    weights = source.net.state_dict()
    own = model.net.state_dict()
    if source.labels != model.labels:
        # the last layer of every network here is the last pair of weights in its state
        for name in list(own)[-2:]:
            weights[name] = own[name]
    wrong = [name for name in own if name not in weights or weights[name].shape != own[name].shape]
    if wrong or len(own) != len(weights):
        held = source.hparams.model
        give = held["name"] if held["library"] == "fer" else f"torchvision model.name={held['name']}"
        raise InputError(
            f"init={checkpoint}: holds a {held['name']}, which does not fit model={model.hparams.model['name']}: "
            f"give model={give} model.in_channels={held['in_channels']}"
        )
    model.net.load_state_dict(weights)
    inherit(model, source)


def _require_same_model(source: EmotionClassifier, model: EmotionClassifier, config: dict[str, Any]) -> None:
    if Path(config["resume"]).suffix.lower() != ".ckpt":
        raise InputError(f"resume={config['resume']}: no run to go on with; start from its weights with init=")
    require_same(source.labels, model.labels, config["resume"], config["data"]["file"])
    for key, value in source.hparams.model.items():
        if config["model"].get(key) != value:
            raise InputError(
                f"resume={config['resume']}: was trained with model.{key}={value}, not {config['model'].get(key)}; "
                "give the command of that run again"
            )
    for key, value in (source.hparams.recipe or {}).items():
        if config["recipe"].get(key) != value:
            raise InputError(
                f"resume={config['resume']}: was trained with recipe.{key}={value}, not {config['recipe'].get(key)}; "
                "give the command of that run again"
            )


def _counts(recipe: dict[str, Any], data: FaceDataModule) -> list[int] | None:
    """Return the training faces of each class, or None where the recipe does not need them."""
    if recipe["class_weights"] == "none" and not recipe["logit_adjustment"]:
        return None
    labels = read_column(data.info.path, "train", "label")
    return np.bincount(labels, minlength=len(data.info.class_names)).tolist()


def _load_teachers(recipe: dict[str, Any], student: EmotionClassifier) -> Teachers:
    nets = []
    for path in recipe["teachers"]:
        teacher = load_checkpoint(path)
        if teacher.labels != student.labels:
            raise InputError(
                f"recipe.teachers: {path} names {', '.join(teacher.labels)}, the data {', '.join(student.labels)}: "
                "give teachers of the same classes in the same order"
            )
        for key, value in student.hparams.face.items():
            if (found := teacher.hparams.face[key]) != value:
                raise InputError(
                    f"recipe.teachers: {path} was trained with data.{key}={found}, not {value}: "
                    "give teachers of the same faces"
                )
        inherit(student, teacher)
        nets.append(teacher.net)
    return Teachers(nets, recipe["teacher_temperature"])


def _quiet() -> None:
    """Leave out what Lightning tells of itself: found devices, other products, remedies that do not apply here."""
    for package in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    # says which rank was lost before it ends the first one
    logging.getLogger("lightning_fabric.strategies.launchers.subprocess_script").setLevel(logging.INFO)
    for message in (
        "The '.*dataloader' does not have many workers",  # the split is in memory
        "The dirpath has changed",  # a resumed run writes into its own folder
        "`isinstance.treespec, LeafSpec.` is deprecated",  # Lightning's own use of torch
        "You're resuming from a checkpoint that ended before the epoch ended",  # the data module goes on where it was
    ):
        warnings.filterwarnings("ignore", message)


def _callbacks(config: dict[str, Any], out: Path) -> list[Callback]:
    folder = out / "checkpoints"
    callbacks: list[Callback] = [
        Best(folder, config["resume"]),
        # save_last of the other one would keep the last best epoch, not the last epoch
        ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False),
        StopCleanly(folder),
        Speed(config["batch_size"] if config["bare_step"] else None, config["compile"]),
        Pictures(),
    ]
    if config["recipe"]["ema"] is not None:
        # first, so that best.ckpt and the pictures are of the averaged weights
        callbacks.insert(0, EMA(config["recipe"]["ema"]))
    if config["trainer"].get("enable_progress_bar", True):
        callbacks.append(Bar(refresh_rate=10))
    if config["early_stop"] is not None:
        callbacks.append(EarlyStopping("val/acc", mode="max", patience=config["early_stop"]))
    if (limit := config["trainer"].get("max_time")) is not None:
        try:
            # Lightning's own ends within an epoch, and a resumed run would leave out the rest of it and its validation
            callbacks.append(Timer(limit, interval="epoch", verbose=False))
        except MisconfigurationException as error:
            raise InputError(f"trainer.max_time={limit}: not a time DD:HH:MM:SS, such as 00:12:00:00") from error
    return callbacks


def _require_file(data: dict[str, Any]) -> None:
    if Path(data["file"]).exists():
        return
    if data["name"] != "sample":
        raise InputError(
            f"{data['file']}: no such file; make it with `{command_for(data)}`, "
            "or try `python train.py experiment=demo`, which needs no data"
        )
    if started_ranks() > 1:
        # each of them would draw it
        raise InputError(f"{data['file']}: no such file; make it first with `{command_for(data)}`")
    print(f"{data['file']} is not there yet: drawing it")
    print(describe(prepare(data, Path(data["file"]))))


def _require_same_faces(data: dict[str, Any], info: StoreInfo) -> None:
    for key in ("size", "color", "margin"):
        if data[key] != (found := getattr(info.face, key)):
            raise InputError(
                f"data.{key}={data[key]}, but {info.path} was prepared with {found}; set data.{key}={found}"
            )
