"""The processes of one training run: which is first, whether they are one group, and what happens when one is lost."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fer.errors import InputError, RankLost

#: Seconds that a rank has to end by itself after the process that started it is gone.
_GRACE = 30.0


def started_ranks() -> int:
    """Return how many ranks torchrun or srun started together, this one among them; 1 where it was neither."""
    # SLURM_NTASKS is there in a batch script too, which is one process
    return int(os.environ.get("WORLD_SIZE" if "TORCHELASTIC_RUN_ID" in os.environ else "SLURM_STEP_NUM_TASKS", 1))


def local_rank() -> int:
    """Return the number of this process among those of the run on this machine."""
    own = os.environ.get("LOCAL_RANK")
    return int(own if own is not None else os.environ.get("SLURM_LOCALID", 0))


def is_first_rank() -> bool:
    """Say whether this process is the one that writes files; needs no process group."""
    for rank in ("RANK", "SLURM_PROCID"):
        if rank in os.environ and started_ranks() > 1:
            return os.environ[rank] == "0"
    return os.environ.get("NODE_RANK", "0") == "0" and local_rank() == 0


def end_with_parent(grace: float = _GRACE) -> None:
    """End this process ``grace`` seconds after the one that started it, which may have been killed.

    A rank that waits for a lost one in NCCL runs no Python and would hold its GPU for ever.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        time.sleep(grace)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def require_one_group(trainer: Any) -> None:
    """Refuse a trainer that does not take all the ranks that torchrun or srun started.

    Raises:
        InputError: each of them would train alone, or wait for ranks that nobody starts.
    """
    ranks = started_ranks()
    if ranks == trainer.world_size or ranks == 1:
        return
    by = "torchrun" if "TORCHELASTIC_RUN_ID" in os.environ else "srun"
    raise InputError(
        f"{by} started {ranks} processes, but trainer.num_nodes={trainer.num_nodes} times "
        f"trainer.devices={trainer.num_devices} is {trainer.world_size}: set trainer.num_nodes= to the number of "
        "machines and trainer.devices= to the processes on each"
    )


@contextmanager
def naming_lost_ranks(trainer: Any, last: Path) -> Iterator[None]:
    """Raise `RankLost` for what gloo and NCCL raise where another rank ended or does not answer; ``last`` resumes."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if trainer.world_size == 1 or not any(sign in text for sign in ("gloo", "NCCL", "TCPStore", "c10d")):
            raise
        raise RankLost(trainer.global_rank, last, text) from error
