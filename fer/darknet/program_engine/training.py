"""Training with the darknet program: from a checked config and a folder to weights, logs and scores."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from fer.darknet.design.anchors import kmeans_anchors
from fer.darknet.design.architectures import recipe
from fer.darknet.design.fit import check, epochs_of, fit
from fer.darknet.formats.cfg import Section, layers, parse, task_of
from fer.darknet.formats.export import export
from fer.darknet.formats.photo_folder import DarknetData, darknet_command, darknet_folder, read_darknet
from fer.darknet.formats.run_folder import judged_by, lay_out
from fer.darknet.formats.section import positive
from fer.darknet.formats.weights import Net, newest_whole, read_header, weights_bytes, whole_layers
from fer.darknet.program_engine.log import Complaint, Loaded, parse_line
from fer.darknet.program_engine.process import explain, run
from fer.darknet.program_engine.program import Program, command, find_program, note, require_support
from fer.darknet.program_engine.scores import classifier_valid, detector_map
from fer.darknet.program_engine.transfer import iteration_of, pretrained, resumed
from fer.darknet.runs.monitor import Monitor, curves
from fer.darknet.runs.scorer import Scorer, best_weights, read_best, take_along
from fer.data.preparation.summary import describe
from fer.errors import InputError, Interrupted, Stopped

#: The program goes on after these, with a random picture or with wrong labels.
_FATAL = re.compile("Cannot load image|Too many or too few labels|Can't open label file|Couldn't open file")

#: The score that chooses the best checkpoint, by task.
METRIC = {"detector": "val/map50", "classifier": "val/top1"}


def train(config: dict[str, Any], out: Path) -> float:
    """Train a checked config (`fer.darknet.config`) with the darknet program, all under ``out``.

    Returns the best score of the validation split: top-1 or mAP@0.50, a fraction; 0 when none was taken.

    Raises:
        InputError: a wrong option, a file that is missing or does not fit, a program that lacks what the net needs, or
            a run that the program ended early, with its last words.
        Stopped: SIGINT or SIGTERM came; the newest whole weights resume.
    """
    options = config["darknet"]
    program = find_program(options["binary"])
    sections, name = open_sections(options)
    task = task_of(sections)
    flags = _flags(program, options, task)
    data = open_data(config, task)
    sections = fitted_to(sections, options, data)
    require_support(program, sections, task, flags)
    net = Net(out / "backup" / f"{name}.weights", out / f"{name}.cfg", data.names, sections, task)
    data_file, cfg = lay_out(out, name, sections, data, facts_of(config, program.dialect, data, name))
    require_room(out, sections)
    start, iteration, anew = _start(config, program, net, out)
    max_batches = int(sections[0].options["max_batches"])
    if iteration >= max_batches:
        raise InputError(f"{start} has {iteration:,} iterations and darknet.max_batches={max_batches:,}: raise it")
    introduce(f"{program.path} ({program.dialect})", net, data, max_batches, out)
    if text := note(program):
        print(f"note: {text}")
    monitor = Monitor(out, sections, max_batches, iteration, METRIC[task])
    work = tempfile.TemporaryDirectory(prefix="fer-darknet-", ignore_cleanup_errors=True)
    scorer = _scorer(program, net, data, options, monitor, iteration, Path(work.name))
    arguments = command(
        program, task, "train", data_file, cfg, start, flags=flags | ({"clear"} if anew else set()),
        mjpeg_port=options["mjpeg_port"], gpus=options["gpus"],
    )  # fmt: skip
    try:
        _run(arguments, net, monitor, scorer, start, max_batches)
        if scorer:
            scorer.finish()
    except Interrupted as stopped:
        newest = newest_whole(net.weights.parent, name, sections)
        if newest is None:
            raise InputError(
                "stopped before the program had saved anything, which it does every 100 iterations: start again"
            ) from None
        raise Stopped(stopped.signal, newest) from None
    finally:
        if scorer:
            scorer.stop()
        monitor.close()
        work.cleanup()
    return tell(out, net, monitor, data)


def open_sections(options: dict[str, Any]) -> tuple[list[Section], str]:
    """Return the net of a recipe or a .cfg file, and its name up to the first dot, which the program calls files by."""
    if options["name"] != "custom":
        return recipe(options["name"]), options["name"]
    path = Path(options["cfg"] or "")
    if not options["cfg"]:
        raise InputError("darknet.cfg is not set: darknet=custom trains the net of darknet.cfg=FILE.cfg")
    if not path.is_file():
        raise InputError(f"darknet.cfg={path}: no such file")
    return parse(path.read_text(errors="replace"), str(path)), path.name.split(".")[0]


def open_data(config: dict[str, Any], task: str) -> DarknetData:
    """Return the exported folder of a config, drawn sample data made where it is not there yet."""
    options, data = config["darknet"], config["data"]
    if task == "detector" and not options["folder"] and data["name"] in ("fer2013", "fer2021", "folder"):
        raise InputError(
            f"data={data['name']} has no boxes of faces: a detector needs data=affectnet, or csv with boxes"
        )
    crop = (options["crop"] if task == "classifier" else None) or "photo"
    folder = Path(options["folder"]) if options["folder"] else darknet_folder(data, task, crop)
    if not folder.exists() and data["name"] == "sample" and not options["folder"]:
        print(f"{folder} is not there yet: making it")
        print(describe(export(data, folder, task, crop)))
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; make it with `{darknet_command(data, task, crop)}`")
    found = read_darknet(folder)
    if found.task != task:
        raise InputError(f"{folder} is made for a {found.task}, but darknet={options['name']} is a {task}")
    if not found.photos.get("train") or not found.photos.get(judged_by(found)):
        raise InputError(f"{folder} has no photos to train on, or none to score checkpoints on")
    return found


def fitted_to(sections: list[Section], options: dict[str, Any], data: DarknetData) -> list[Section]:
    """Return the net made to fit the data and the options."""
    classes, photos = len(data.names), data.photos["train"]
    if options["anchors"] == "kmeans":
        heads = [section for section in sections if section.kind == "yolo"]
        if not heads:
            raise InputError("darknet.anchors=kmeans: the net has no [yolo], which has anchors: set it to null")
        sized = fit(sections, options | {"anchors": None}, classes, photos)
        labels = [Path(line).with_suffix(".txt") for line in data.lists["train"].read_text().splitlines()]
        size = positive(sized[0], "width"), positive(sized[0], "height")
        anchors, overlap = kmeans_anchors(labels, size, positive(heads[0], "num", 1))
        print(f"anchors by k-means on {len(labels):,} photos: mean best IoU {overlap:.3f}")
        options = options | {"anchors": [value for pair in anchors for value in pair]}
    fitted = fit(sections, options, classes, photos)
    check(fitted, classes)
    return fitted


def _flags(program: Program, options: dict[str, Any], task: str) -> set[str]:
    """Return the program's flags of this run; what its dialect has no flag for is done here instead."""
    flags = set()
    if options["dont_show"] and program.has_flag(task, "dont_show"):
        flags.add("dont_show")
    if task == "detector" and options["map"] and program.has_map:
        flags.add("map")
    if options["mjpeg_port"]:
        flags.add("mjpeg_port")
        print(f"note: port {options['mjpeg_port']} will be open on every network interface of this machine")
    return flags


def _start(config: dict[str, Any], program: Program, net: Net, out: Path) -> tuple[Path | None, int, bool]:
    """Return the weights to start from, the iteration they stand at, and whether the program must count anew."""
    options = config["darknet"]
    if config["resume"]:
        start = resumed(config["resume"], net.cfg.stem, net.sections)
        if options["clear"]:
            return start, 0, True
        take_along(start.with_name(net.weights.name), net.weights)
        return start, iteration_of(start, net.sections), False
    start = pretrained(program, options, net.sections, out)
    # a file of first layers may count images that another net has seen
    return start, 0, start is not None and read_header(start).seen > 0


def require_room(out: Path, sections: list[Section], files: int = 4) -> None:
    """Refuse a disk without room for so many weights files."""
    need, free = files * weights_bytes(sections), shutil.disk_usage(out).free
    if free < need:
        raise InputError(f"{out}: {free >> 20:,} MiB free, but its weights files take {need >> 20:,} MiB: make room")


def _scorer(
    program: Program, net: Net, data: DarknetData, options: dict[str, Any], monitor: Monitor, start: int, work: Path
) -> Scorer | None:
    wanted = options["map"] and not program.has_map if net.task == "detector" else options["topk"]
    if not wanted:
        return None
    photos = data.lists[judged_by(data)]
    epoch = data.photos["train"] // int(net.sections[0].options["batch"])

    def measure(checkpoint: Net) -> dict[str, float]:
        if net.task == "classifier":
            top = classifier_valid(program, checkpoint, data.names, photos, work)
            return {"val/top1": top.top1, f"val/top{top.k}": top.topk}
        scores = detector_map(program, checkpoint, data.names, photos, work)
        return {"val/map50": scores["map50"]} | {f"val/ap/{row['name']}": row["ap"] for row in scores["per_class"]}

    # the program saves every 100 iterations; a score a checkpoint would take longer than the training on large sets
    return Scorer(net, max(100, epoch), METRIC[net.task], measure, monitor.score, start)


def _run(
    arguments: list[str], net: Net, monitor: Monitor, scorer: Scorer | None, start: Path | None, max_batches: int
) -> None:
    """Run the program to its end and require what its exit code does not tell: weights read, every iteration done."""
    out, told = net.cfg.parent, set()
    expected = whole_layers(start, net.sections) if start else 0

    def on_line(line: str) -> None:
        record = parse_line(line)
        if isinstance(record, Loaded) and record.layers is not None and record.layers < expected:
            raise InputError(f"the program read {record.layers} of {expected} layers of {start}")
        if isinstance(record, Complaint) and record.text not in told:
            if _FATAL.search(record.text):
                raise InputError(f"{arguments[0]}: {record.text} ({out / 'darknet.log'})")
            told.add(record.text)
            monitor.note(f"the program complains: {record.text}")
        if scorer and scorer.error:
            raise scorer.error
        monitor(line)

    if scorer:
        scorer.start()
    finished = run(arguments, out, out / "darknet.log", on_line)
    final = newest_whole(net.weights.parent, net.cfg.stem, net.sections)
    if final is None or iteration_of(final, net.sections) < max_batches:
        rest = f"; go on with resume={out}" if final else ""
        raise InputError(f"{explain(finished)} (iteration {monitor.iteration:,}; {out / 'darknet.log'}{rest})")


def facts_of(config: dict[str, Any], program: str, data: DarknetData, name: str) -> dict[str, Any]:
    """Return what run.json says of a run; ``program`` is the dialect that trains it, or torch."""
    options = config["darknet"]
    return {
        "name": name, "task": data.task, "data": data.data, "folder": str(data.folder.absolute()), "drawn": data.drawn,
        "class_names": list(data.class_names), "program": program, "judged_by": judged_by(data),
        "pretrained": options["pretrained"] and Path(options["pretrained"]).name,
        "pretrained_layers": options["pretrained_layers"], "resume": config["resume"],
    }  # fmt: skip


def introduce(by: str, net: Net, data: DarknetData, max_batches: int, out: Path) -> None:
    """Print what is trained on what, and ``by`` what."""
    batch, judge = int(net.sections[0].options["batch"]), judged_by(data)
    epochs = epochs_of(max_batches, batch, data.photos["train"])
    print(
        f"{net.cfg.stem}: {len(layers(net.sections))} layers, {weights_bytes(net.sections) / 1e6:.1f} MB of weights; "
        f"{data.folder}: {data.photos['train']:,} train, {data.photos[judge]:,} {judge} photos"
        + (" (drawn sample data)" if data.drawn else "")
        + f"; {max_batches:,} iterations of {batch} = {epochs:.1f} epochs; {by}; "
        f"run folder {out}"
    )
    if judge == "test":
        print("note: there is no val split of its own: test photos choose the best checkpoint, as in the seed")


def tell(out: Path, net: Net, monitor: Monitor, data: DarknetData, more: str = "") -> float:
    """Draw the curves, say where everything lies, and return the best score; ``more`` goes to the printed command."""
    metric, best = METRIC[net.task], read_best(net.weights)
    title = f"{net.cfg.stem} on {data.data}" + (" (drawn sample data)" if data.drawn else "")
    curves(monitor.history, monitor.scores, metric, title).savefig(out / "curves.png", dpi=100)
    kept = best_weights(net.weights)
    chosen = kept if kept.is_file() else newest_whole(net.weights.parent, net.cfg.stem, net.sections)
    score = best["score"] if best else max(monitor.scores.values(), default=0.0)
    if best or monitor.scores:
        print(f"best {metric} {score:.4f}: {chosen}")
    print(f"curves: {out / 'curves.png'}")
    print(f"TensorBoard: tensorboard --logdir {out}")
    print(f"score it: python evaluate.py ckpt={chosen}{more}")
    return score
