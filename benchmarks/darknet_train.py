"""Darknet nets trained by train.py in torch against Debian's program of 2018: seconds an iteration on a CPU.

    python benchmarks/darknet_train.py [NETWORK ...]

Both read the same drawn photos anew for each iteration, augment them and train the same cfg, started by the same call
but for darknet.engine, in turn, each in a process of its own. TensorBoard's times of the iterations are the clock; the
first few, in which memory is got, don't count. ``darknet`` must be Debian's (`apt-get install darknet`), which computes
on one core; the memory printed of it is that of the process that starts it. Target: at least 8 times faster on 2 cores.
"""

import sys
import tempfile
from pathlib import Path
from statistics import mean

import measure

#: Network to its overrides of the config, beside its recipe's batch.
NETWORKS = {
    "classifier_tiny": "darknet.size=224 darknet.batch=16 darknet.topk=false".split(),
    "v3_tiny": "darknet.size=256 darknet.batch=8 darknet.subdivisions=1 darknet.random=0 darknet.map=false".split(),
}
#: Engine to the iterations of a run, and how many of the first don't count.
ITERATIONS = {"torch": (30, 5), "binary": (4, 1)}
PHOTOS = 500


def config_for(name: str, engine: str, folder: str) -> dict:
    from hydra import compose, initialize_config_dir

    from fer.darknet.config import check_darknet_train

    overrides = [
        "data=sample", f"darknet={name}", f"darknet.engine={engine}", f"darknet.folder={folder}", "trainer=cpu",
        "trainer.enable_progress_bar=false", f"darknet.max_batches={ITERATIONS[engine][0]}", "darknet.burn_in=1",
        *NETWORKS[name],
    ]  # fmt: skip
    with initialize_config_dir(str(Path(__file__).resolve().parents[1] / "conf"), version_base="1.3"):
        return check_darknet_train(compose("train", overrides), [])


def seconds_of(out: Path, skip: int) -> float:
    """Return the mean seconds of a run's iterations from its TensorBoard, without the first ``skip``."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    times = [event.wall_time for event in EventAccumulator(str(out / "tensorboard")).Reload().Scalars("train/loss")]
    return mean(after - before for before, after in zip(times[skip - 1 :], times[skip:], strict=False))


def torch_way(name: str, folder: str) -> float:
    from fer.darknet.torch_engine.training.run import train

    with tempfile.TemporaryDirectory() as out:
        train(config_for(name, "torch", folder), Path(out))
        return seconds_of(Path(out), ITERATIONS["torch"][1])


def debian_way(name: str, folder: str) -> float:
    from fer.darknet.program_engine.training import train

    with tempfile.TemporaryDirectory() as out:
        train(config_for(name, "binary", folder), Path(out))
        return seconds_of(Path(out), ITERATIONS["binary"][1])


PROGRAMS = {"torch": torch_way, "debian": debian_way}


def main() -> None:
    from fer.darknet.formats.export import export
    from fer.darknet.program_engine.program import find_program

    if find_program(None).dialect != "pjreddie":
        sys.exit("darknet on PATH is not Debian's: apt-get install darknet")
    # a run of either takes a quarter of a minute
    measure.TURNS = 3
    for name in sys.argv[1:] or NETWORKS:
        task = "classifier" if name.startswith("classifier") else "detector"
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work) / task
            export(measure.data_config("sample", Path(work) / "drawn") | {"photos": PHOTOS}, folder, task, "photo")
            print(f"{name}: seconds an iteration, {' '.join(NETWORKS[name])}")
            best = measure.take_turns(__file__, dict.fromkeys(PROGRAMS, (name, folder)))
        ours, reference = (best[way]["seconds"] for way in PROGRAMS)
        print(
            f"{name}: torch {1 / ours:.2f} iterations/s, Debian's darknet {1 / reference:.3f} iterations/s, "
            f"{reference / ours:.1f} times faster (target at least 8)"
        )


if __name__ == "__main__":
    measure.serve(PROGRAMS)
    main()
