"""Training with the darknet program: from a checked config and a folder to weights, logs and scores."""

import re
import tempfile
from pathlib import Path
from typing import Any

from fer.darknet.formats.cfg import task_of
from fer.darknet.formats.photo_folder import DarknetData
from fer.darknet.formats.records import Complaint, Loaded
from fer.darknet.formats.run_folder import judged_by, lay_out
from fer.darknet.formats.weights import (
    Net,
    find_resume_weights,
    newest_whole,
    read_header,
    saved_iteration,
    whole_layers,
)
from fer.darknet.program_engine.log import parse_line
from fer.darknet.program_engine.monitor import ProgramMonitor
from fer.darknet.program_engine.own_files import list_own_files
from fer.darknet.program_engine.process import explain, run
from fer.darknet.program_engine.program import Program, command, find_program, note, require_support
from fer.darknet.program_engine.scores import classifier_valid, detector_map
from fer.darknet.program_engine.transfer import pretrained
from fer.darknet.runs.scorer import Scorer, take_along
from fer.darknet.runs.setup import (
    METRIC,
    detector_metrics,
    fit_to_data,
    open_dataset,
    read_sections,
    require_disk_space,
    run_facts,
)
from fer.darknet.runs.summary import note_result, print_results, print_start
from fer.errors import InputError, Interrupted, Stopped
from fer.runs.record import recorded

#: The program goes on after these, with a random picture or with wrong labels.
_FATAL = re.compile("Cannot load image|Too many or too few labels|Can't open label file|Couldn't open file")


@recorded
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
    sections, name = read_sections(options)
    task = task_of(sections)
    flags = _flags(program, options, task)
    data = open_dataset(config, task, out)
    sections = fit_to_data(sections, options, data)
    require_support(program, sections, task, flags)
    net = Net(out / "backup" / f"{name}.weights", out / f"{name}.cfg", data.names, sections, task)
    data_file, cfg = lay_out(out, name, sections, data, run_facts(config, program.dialect, data, name))
    if program.tables.follows_links and "map" in flags:
        list_own_files(out / f"{judged_by(data)}.txt", out / "photos")
    require_disk_space(out, sections)
    start, iteration, anew = _start(config, program, net, out)
    max_batches = int(sections[0].options["max_batches"])
    if iteration >= max_batches:
        raise InputError(f"{start} has {iteration:,} iterations and darknet.max_batches={max_batches:,}: raise it")
    print_start(f"{program.path} ({program.dialect})", net, data, max_batches, out, iteration, options)
    if text := note(program):
        print(f"note: {text}")
    monitor = ProgramMonitor(out, sections, max_batches, iteration, METRIC[task], config=config)
    work = tempfile.TemporaryDirectory(prefix="fer-darknet-", ignore_cleanup_errors=True)
    scorer = _scorer(program, net, data, options, monitor, iteration, Path(work.name))
    arguments = command(
        program, task, "train", data_file, cfg, start, flags=flags | ({"clear"} if anew else set()),
        mjpeg_port=options["mjpeg_port"], gpus=options["gpus"],
    )  # fmt: skip
    try:
        _run(arguments, program.tables.answer, net, monitor, scorer, start, max_batches)
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
        note_result(out, net, monitor)
    return print_results(out, net, monitor, data)


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
        resumed = find_resume_weights(config["resume"], net.cfg.stem, net.sections)
        if options["clear"]:
            return resumed, 0, True
        take_along(resumed.with_name(net.weights.name), net.weights)
        return resumed, saved_iteration(resumed, net.sections), False
    start = pretrained(program, options, net.sections, out)
    # a file of first layers may count images that another net has seen
    return start, 0, start is not None and read_header(start).seen > 0


def _scorer(
    program: Program,
    net: Net,
    data: DarknetData,
    options: dict[str, Any],
    monitor: ProgramMonitor,
    start: int,
    work: Path,
) -> Scorer | None:
    needed = options["map"] and not program.has_map if net.task == "detector" else options["topk"]
    if not needed:
        return None
    photos = data.lists[judged_by(data)]
    epoch = data.photos["train"] // int(net.sections[0].options["batch"])

    def measure(checkpoint: Net) -> dict[str, float]:
        if net.task == "classifier":
            top = classifier_valid(program, checkpoint, data.names, photos, work)
            return {"val/top1": top.top1, f"val/top{top.k}": top.topk}
        return detector_metrics(detector_map(program, checkpoint, data.names, photos, work))

    # the program saves every 100 iterations; a score a checkpoint would take longer than the training on large sets
    return Scorer(net, max(100, epoch), METRIC[net.task], measure, monitor.score, start)


def _run(
    arguments: list[str], answer: str | None, net: Net, monitor: ProgramMonitor, scorer: Scorer | None,
    start: Path | None, max_batches: int,
) -> None:  # fmt: skip
    """Run the program to its end and require what its exit code does not tell: weights read, every iteration done."""
    out, noted = net.cfg.parent, set()
    expected = whole_layers(start, net.sections) if start else 0

    def on_line(line: str) -> None:
        record = parse_line(line)
        if isinstance(record, Loaded) and record.layers is not None and record.layers < expected:
            raise InputError(f"the program read {record.layers} of {expected} layers of {start}")
        if isinstance(record, Complaint) and record.text not in noted:
            if _FATAL.search(record.text):
                raise InputError(f"{arguments[0]}: {record.text} ({out / 'darknet.log'})")
            noted.add(record.text)
            monitor.note(f"the program complains: {record.text}")
        if scorer and scorer.error:
            raise scorer.error
        monitor(line)

    if scorer:
        scorer.start()
    finished = run(arguments, out, out / "darknet.log", on_line, answer)
    final = newest_whole(net.weights.parent, net.cfg.stem, net.sections)
    if final is None or saved_iteration(final, net.sections) < max_batches:
        rest = f"; go on with resume={out}" if final else ""
        raise InputError(f"{explain(finished)} (iteration {monitor.iteration:,}; {out / 'darknet.log'}{rest})")
