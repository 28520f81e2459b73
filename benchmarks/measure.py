"""What the benchmarks share: programs that take turns, each in a process of its own, timed, with its peak memory."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

#: Runs of each program, in turn; the best counts, as whatever else the machine does can only make a run slower.
TURNS = 5


def memory(field: str) -> float:
    """Return this process's resident memory now (VmRSS) or at its peak (VmHWM), in GiB; Linux only."""
    # Not ru_maxrss: Linux starts it at the size of the process that this one was started from.
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**20


def serve(programs: Mapping[str, Callable[..., Any]]) -> None:
    """In a process that ``run`` started, run the program that is asked for, print what it took and exit.

    A program that times only a part of itself returns those seconds as a float.
    """
    if sys.argv[1:2] != ["--child"]:
        return
    program, *arguments = sys.argv[2:]
    before = memory("VmRSS")
    start = time.perf_counter()
    result = programs[program](*arguments)
    seconds = result if isinstance(result, float) else time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "gib": memory("VmHWM") - before}))
    sys.exit()


def run(script: str, program: str, *arguments: str | Path) -> dict[str, float]:
    """Return the ``seconds`` and the peak memory ``gib`` of one program, both above the imports of its script."""
    command = [sys.executable, script, "--child", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{program} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def take_turns(script: str, programs: Mapping[str, tuple[str | Path, ...]]) -> dict[str, dict[str, float]]:
    """Run each program, given with its arguments, TURNS times in turn; print and return best seconds and worst peak."""
    taken: dict[str, list[dict[str, float]]] = {program: [] for program in programs}
    before = os.getloadavg()[0]
    for _ in range(TURNS):
        for program, arguments in programs.items():
            taken[program].append(run(script, program, *arguments))
    after = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores; load average {before:.1f} before, {after:.1f} after; best of {TURNS} runs")
    best = {}
    for program, runs in taken.items():
        seconds = [result["seconds"] for result in runs]
        best[program] = {"seconds": min(seconds), "gib": max(result["gib"] for result in runs)}
        all_runs = ", ".join(f"{value:.2f}" for value in seconds)
        print(f"{program:10} {min(seconds):6.2f} s  (runs: {all_runs})  {best[program]['gib']:.2f} GiB above imports")
    return best


def data_config(name: str, raw: Path) -> dict[str, Any]:
    """Return the ``data`` config of ``prepare.py data=NAME data.raw=RAW``."""
    # here, so that the measured processes, which are given its result, do not load Hydra
    from hydra import compose, initialize_config_dir

    from fer.config.checks import check_data

    with initialize_config_dir(str(Path(__file__).resolve().parents[1] / "conf"), version_base="1.3"):
        return check_data(compose("prepare", [f"data={name}", f"data.raw={raw}"]).data)
