"""Scoring a weights file with the darknet program or in torch, and saying what the score is worth."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer.darknet.formats.photo_folder import (
    DarknetData,
    darknet_command,
    darknet_folder,
    read_darknet,
    read_list,
    read_photos,
)
from fer.darknet.formats.run_folder import read_facts
from fer.darknet.formats.weights import Net, open_configured_net
from fer.darknet.program_engine.program import Program, find_program, require_support
from fer.darknet.program_engine.scores import classifier_valid, classify, detector_map
from fer.darknet.runs.yolo import open_yolo
from fer.darknet.scoring.report import COUNTED, format_detector_report, save_detector_report
from fer.darknet.scoring.thresholds import check_thresholds, refuse_thresholds
from fer.darknet.torch_engine import scores as torch_scores
from fer.data.source import SPLIT_NAMES
from fer.errors import InputError
from fer.evaluation.metrics import summarize
from fer.evaluation.report import report_folder, save_report
from fer.evaluation.scoring import REMEDY
from fer.evaluation.taxonomy import Common, check_protocol, common_classes
from fer.evaluation.text import format_report
from fer.labels import CLASSES_WITH_CONTEMPT, require_same
from fer.system.files import claiming
from fer.system.memory import keep_freed_memory


def evaluate(keys: dict[str, Any], data: dict[str, Any] | None, options: dict[str, Any]) -> float:
    """Score the weights file ``keys["ckpt"]`` on ``keys["split"]`` of an exported folder; print and save the report.

    The folder is ``options["folder"]``, that of the data config, or the one that the run was trained on. Returns top-1
    of a classifier, mAP of a detector.

    Raises:
        InputError: a file is missing or does not fit, or photos that the net was trained on.
    """
    with _work() as work:
        return _evaluate(keys, data, options, work)


def _evaluate(keys: dict[str, Any], data: dict[str, Any] | None, options: dict[str, Any], work: Path) -> float:
    classes, contempt = keys.get("classes"), keys.get("contempt")
    check_protocol(classes, contempt)
    thresholds = check_thresholds(keys)
    weights = Path(keys["ckpt"])
    net = open_configured_net(keys["ckpt"], options)
    if net.task == "classifier":
        refuse_thresholds(keys)
    facts = read_facts(weights)
    program = None
    if options["engine"] == "binary":
        program = find_program(options["binary"])
        require_support(program, net.sections, net.task, action="valid")
    else:
        keep_freed_memory()
    exported, where = _open(net, data, options, facts, work)
    if exported.task != net.task:
        raise InputError(f"{weights} is a {net.task}, but {where} is made for a {exported.task}")
    if classes and net.task == "detector":
        raise InputError(f"classes={classes}: for classifiers; {weights} is a detector")
    if options["crop"] == "face" and net.task == "detector":
        raise InputError(f"darknet.crop=face: for classifiers; {weights} is a detector")
    if not classes:
        remedy = REMEDY if net.task == "classifier" else ""
        require_same(net.names, exported.names, str(weights), where, remedy)
    split = SPLIT_NAMES.get((keys["split"] or "val").lower())
    if split not in ("val", "test"):
        raise InputError(f"split={keys['split']}: not val or test")
    listed = split if split in exported.lists else "test"
    if listed not in exported.lists:
        raise InputError(f"{where} has no {split} photos")
    photos = _rows(exported, listed)
    notes = _notes(photos, facts, weights, f"split={split} of {where}")
    if listed != split:
        notes.append("This data set has no val photos of its own: these are its test photos.")
    report = {
        "split": split, "data": exported.data, "file": where, "checkpoint": str(weights),
        "model": facts.get("name", net.cfg.stem), "trained_on": facts.get("data", "unknown"),
        "drawn": exported.drawn or facts.get("drawn", False), "notes": notes,
        "program": program.dialect if program else "torch",
        "size": int(net.sections[0].options["width"]), "pretrained": _pretrained(facts),
    }  # fmt: skip
    made_by = "program" if program else "torch"
    common = None
    name = f"{weights.stem}-{made_by}-{exported.data}-{split}"
    if classes:
        common = _common(net, exported, photos, contempt)
        report |= {"classes": classes, "contempt": contempt, "common": common.facts}
        name += "-common"
    own = _run_folder(weights) / "evaluate" / name
    keep = ("checkpoint", "file", "split", "program", "classes", "contempt")
    made_of = {key: report.get(key) for key in keep} | (thresholds if net.task == "detector" else {})
    folder = report_folder(Path(keys["out"]) if keys["out"] else own, **made_of)
    with claiming(folder):
        if net.task == "classifier":
            return _score_classifier(program, net, exported, listed, photos, report, folder, keys["device"], common)
        return _score_detector(program, net, exported, listed, photos, report, folder, keys["device"], thresholds)


def _score_classifier(
    program: Program | None, net: Net, exported: DarknetData, listed: str, photos: pd.DataFrame, report: dict[str, Any],
    folder: Path, device: str, common: Common | None,
) -> float:  # fmt: skip
    own: dict[str, Any] = {}
    if common:
        table = photos.rename(columns={"label": "own_label"})[["source", "path", "own_label"]]
        labels = np.array([exported.class_names.index(label) for label in photos["label"]])
        kept = common.kept(labels)
        photos, labels = photos[kept], common.data[labels[kept]]
        own = {"own_labels": photos["label"].tolist(), "tables": {"left_out.csv": table[~kept]}}
    files = [Path(file) for file in photos["file"]]
    if program:
        with _work() as work:
            probabilities = classify(program, net, net.names, files, work)
            if not common:
                # of its own classes, so that it would tell nothing of those in common
                top = classifier_valid(program, net, exported.names, exported.lists[listed], work)
                report["printed"] = {"top1": top.top1, f"top{top.k}": top.topk}
    else:
        probabilities = torch_scores.classify(net, files, device)
    if common:
        classes = common.names
        # a logarithm of a probability is a logit but for a constant of its row
        probabilities = common.fold(np.log(probabilities.clip(np.finfo(np.float64).tiny)), 0)
    else:
        classes = _report_order(exported.class_names)
        probabilities = probabilities[:, [exported.class_names.index(name) for name in classes]]
        labels = np.array([classes.index(label) for label in photos["label"]])
    report |= {"headline": "plain", "plain": summarize(probabilities, labels, classes)}
    written = save_report(
        folder, report, probabilities, labels, photos["path"].tolist(), photos["source"].tolist(), classes, **own
    )
    print(format_report(report))
    print(f"confusion matrix: {written['confusion.png']}\nreport: {written['report.json']}")
    return report["plain"]["accuracy"]


def _score_detector(
    program: Program | None, net: Net, exported: DarknetData, listed: str, photos: pd.DataFrame, report: dict[str, Any],
    folder: Path, device: str, thresholds: dict[str, float],
) -> float:  # fmt: skip
    if program:
        with _work() as work:
            report |= detector_map(program, net, exported.class_names, exported.lists[listed], work, **thresholds)
    else:
        report |= torch_scores.detector_map(net, exported.class_names, exported.lists[listed], device, **thresholds)
    report["counted"] = COUNTED
    written = save_detector_report(folder, report | {"task": "detector", "photos": len(photos)})
    print(format_detector_report(report))
    print(f"report: {written['report.json']}")
    return report["map"]


@contextmanager
def _work() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fer-darknet-") as folder:
        yield Path(folder)


def _open(
    net: Net, data: dict[str, Any] | None, options: dict[str, Any], facts: dict[str, Any], work: Path
) -> tuple[DarknetData, str]:
    """Return the photos to score and what messages call them; a YOLO data set is scored where it lies."""
    if data is not None and data["name"] == "yolo" and net.task == "detector" and not options["folder"]:
        return open_yolo(data, work, options["engine"] == "binary", kept=False), str(data["raw"])
    exported = read_darknet(_folder(net, data, options, facts))
    return exported, str(exported.folder)


def _folder(net: Net, data: dict[str, Any] | None, options: dict[str, Any], facts: dict[str, Any]) -> Path:
    if options["folder"]:
        return Path(options["folder"])
    if data is None:
        if "folder" not in facts:
            raise InputError(f"{net.weights}: no run.json beside it says what to score it on: give data=NAME")
        return Path(facts["folder"])
    folder = darknet_folder(data, net.task, options["crop"] or "photo")
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; make it with `{darknet_command(data, net.task, options['crop'] or 'photo')}`"
        )
    return folder


def _run_folder(weights: Path) -> Path:
    return weights.parent.parent if weights.parent.name == "backup" else weights.parent


def _rows(exported: DarknetData, listed: str) -> pd.DataFrame:
    """Return the photos of a list with source, path and label, in the order of the list."""
    files = [str(photo) for photo in read_list(exported.lists[listed])]
    return read_photos(exported.folder).set_index("file").loc[files].reset_index()


def _common(net: Net, exported: DarknetData, photos: pd.DataFrame, contempt: str | None) -> Common:
    """Return the classes that the net and an exported folder share, in the order of every other report."""
    everything = read_photos(exported.folder)["label"].value_counts()
    rows, scored = (
        [int(counts.get(name, 0)) for name in exported.class_names]
        for counts in (everything, photos["label"].value_counts())
    )
    where = str(exported.folder)
    found = common_classes({str(net.weights): net.names}, exported.class_names, rows, scored, contempt, where)
    return found.ordered(_report_order(found.names))


def _report_order(class_names: Sequence[str]) -> list[str]:
    """Return the classes in the order of every other report: FER2013's, where they are expressions."""
    ordered = [name for name in CLASSES_WITH_CONTEMPT if name in class_names]
    return ordered if len(ordered) == len(class_names) else list(class_names)


def _pretrained(facts: dict[str, Any]) -> str | None:
    layers = facts.get("pretrained_layers")
    return facts.get("pretrained") and facts["pretrained"] + (f", {layers} layers" if layers else "")


def _notes(photos: pd.DataFrame, facts: dict[str, Any], weights: Path, what: str) -> list[str]:
    """Refuse photos that the net was trained on, and say when they chose the checkpoint."""
    if "folder" not in facts or not Path(facts["folder"]).is_dir():
        return ["What the net was trained on is not recorded here, so these photos may be among it."]
    splits_of_photos = read_photos(Path(facts["folder"])).set_index(["source", "path"])["split"]
    # all faces of a photo are in the same splits
    splits_of_photos = splits_of_photos[~splits_of_photos.index.duplicated()]
    recorded = splits_of_photos.reindex(pd.MultiIndex.from_frame(photos[["source", "path"]])).fillna("").str.split("+")
    trained = int(sum("train" in splits for splits in recorded))
    if trained:
        raise InputError(
            f"{what}: {trained:,} of its {len(photos):,} photos are photos that {weights} was trained on; "
            "a score on them would mean nothing"
        )
    judged = int(sum(facts["judged_by"] in splits for splits in recorded))
    if not judged or not weights.name.endswith("_best.weights"):
        return []
    return [
        f"The checkpoint was chosen among others by its score on {judged:,} of these {len(photos):,} photos, "
        "so the score is optimistic; it is no test of the model."
    ]
