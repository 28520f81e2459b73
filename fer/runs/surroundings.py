"""What a run depends on beside its config: the code, the packages, the machine."""

import os
import platform
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import fer

#: Seconds that a program which is asked may take.
_PATIENCE = 20


def git_state(package: Path) -> dict[str, Any] | None:
    """Return ``commit`` and ``dirty`` of the checkout that a package lies in, None outside of one or without git.

    Dirty is a changed file that git knows, or a new one beside the package or in its configs. A package that git does
    not know, as one installed into an environment inside some other checkout, is in none.
    """
    root = package.parent
    if _git(root, "ls-files", "--error-unmatch", f"{package.name}/__init__.py") is None:
        return None
    commit, changed = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--untracked-files=no")
    new = _git(root, "ls-files", "--others", "--exclude-standard", "--", package.name, "conf")
    if commit is None or changed is None or new is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(changed.strip() or new.strip())}


def _git(folder: Path, *words: str) -> str | None:
    # those of a hook that this runs in would lead to another repository
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return _said(["git", "-C", str(folder), *words], env | {"GIT_OPTIONAL_LOCKS": "0"})


def _said(command: list[str], env: dict[str, str] | None = None) -> str | None:
    """Return what a program prints, None where there is none or it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=env, timeout=_PATIENCE, check=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def hardware() -> dict[str, Any]:
    """Return the CPU's name, its ``cores`` (``usable`` by this process), memory in GiB, and GPUs as their driver says.

    The driver's program is asked, as torch would occupy each GPU to answer.
    """
    listed = _said(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]) or ""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": [line.strip() for line in listed.splitlines() if line.strip()],
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def surroundings() -> dict[str, Any]:
    """Return git, python, system, packages (name to version) and hardware of this process, as plain data."""
    found = {str(each.metadata["Name"]): each.version for each in distributions() if each.metadata["Name"]}
    return {
        "git": git_state(Path(fer.__file__).resolve().parent),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": dict(sorted(found.items(), key=lambda item: item[0].lower())),
        "hardware": hardware(),
    }
