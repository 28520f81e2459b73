"""The command ``fer`` and the scripts of the checkout: the same jobs, and every end in one line."""

import os
import subprocess
import sys

import pytest

from fer.cli.launch import launch
from fer.system.command import COMMANDS, command
from tests.conftest import ROOT, Singletons


def fer(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "fer", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, **options
    )


def test_the_first_word_chooses():
    done = fer("--help")
    assert done.returncode == 0 and all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert fer().returncode == 2
    done = fer("trian")
    assert done.returncode == 2
    assert done.stderr == "error: there is no command trian (did you mean train?); see `fer --help`\n"
    # the same command line as the script's, and its help says how it was started
    done = fer("prepare", "--help")
    assert done.stdout.count("  fer prepare ") > 3 and "python prepare.py" not in done.stdout
    done = fer("prepare", "nonsense=1")
    assert done.returncode == 2 and done.stderr.startswith("error: there is no key nonsense; valid in prepare: ")


@pytest.mark.parametrize("started", [["-m", "fer", "train"], ["train.py"]])
def test_help_may_be_cut_by_a_reader_that_has_enough(started):
    shell = f"{sys.executable} {' '.join(started)} --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, timeout=60)
    # 141 is a program that SIGPIPE ended; 0 where all of it fitted into the pipe before the reader left
    assert done.stderr == "" and done.stdout.count("\n") == 1 and done.returncode in (0, 141)


@pytest.mark.parametrize(("where", "code"), [(">&-", 0), ("> /dev/full", 1)])
def test_output_that_goes_nowhere_gives_no_traceback(where, code):
    shell = f"{sys.executable} -m fer --help {where}"
    done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == code and "Traceback" not in done.stderr and done.stderr.count("\n") == code


def test_what_to_type_next_follows_how_it_was_started(monkeypatch):
    for started, says in (
        ("/somewhere/bin/fer", "fer evaluate"),
        ("/somewhere/fer/__main__.py", "fer evaluate"),
        ("/checkout/train.py", "python evaluate.py"),
        ("/a/notebook/launcher.py", "fer evaluate"),
    ):
        monkeypatch.setattr(sys, "argv", [started, "key=value"])
        assert command("evaluate") == says
    monkeypatch.setattr(sys, "argv", ["train.py"])
    # there is no such script
    assert command("demo") == "fer demo" and command("compare") == "fer compare"


def test_the_doors_of_the_checkout_are_those_of_the_command():
    scripts = {path.stem for path in ROOT.glob("*.py")}
    assert scripts == COMMANDS.keys() - {"compare", "demo"}
    assert all(len((ROOT / f"{name}.py").read_text().splitlines()) < 8 for name in scripts)
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_each_job_of_a_sweep_is_what_lightning_starts_again(monkeypatch, tmp_path):
    started = []
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/bin/fer", "look", "-m", "--config-dir", "mine", "seed=3,4", "out=a"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with Singletons():
        launch(lambda cfg, _: started.append(sys.argv[:]), "look", ("look",))
    # the overrides stand at the end, where Lightning adds its own: those before a flag would be refused
    flags = ["--config-name", "look", "--config-dir", str(tmp_path / "mine")]
    assert started == [["/bin/fer", "look", *flags, f"seed={seed}", "out=a"] for seed in (3, 4)]


#: A module that is imported early, or only for the job, and gets Ctrl-C meanwhile; it makes another error of it, as C
#: code may.
CUT = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
except KeyboardInterrupt as error:
    raise ImportError("cut off") from error
"""


@pytest.mark.parametrize("module", ["hydra", "torch"])
@pytest.mark.parametrize("started", [["-m", "fer", "train"], [str(ROOT / "train.py")]])
def test_an_interrupt_during_the_imports_ends_quietly(tmp_path, module, started):
    (tmp_path / f"{module}.py").write_text(CUT)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    command = [sys.executable, *started, "data=sample"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_program_that_is_to_ignore_interrupts_goes_on():
    # as a shell's script has it of what it starts in the background
    command = f"trap '' INT; {sys.executable} -m fer train --help & sleep 0.3; kill -INT $!; wait $!"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "fer train" in done.stdout
