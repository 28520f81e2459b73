"""The program as a child process: nothing it says is lost, nothing it starts is left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from fer.darknet.program_engine.process import Finished, explain, run
from fer.errors import InputError, Interrupted

ROOT = Path(__file__).parents[2]


@pytest.fixture
def child(tmp_path):
    """Run a Python script as the program; returns Finished and the lines."""

    def call(script, on_line=None, stdin=None):
        lines = []
        arguments = [sys.executable, "-c", textwrap.dedent(script)]
        done = run(arguments, tmp_path, tmp_path / "log.txt", on_line or lines.append, stdin)
        return done, lines

    return call


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def gone(pid: int, seconds: float = 3) -> bool:
    until = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


def test_both_streams_in_order_with_progress_split(child, tmp_path):
    done, lines = child(
        """
        import sys, time
        print("one")
        time.sleep(0.1)
        print("two", file=sys.stderr)
        time.sleep(0.1)
        print("4\\r8\\r12\\n\\033[2Jthree\\a", end="")
        """
    )
    assert lines == ["one", "two", "4", "8", "12", "three"]
    assert done.returncode == 0 and done.complaints == () and done.last_lines == tuple(lines)
    assert (tmp_path / "log.txt").read_text().splitlines() == lines
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.txt"]


def test_log_is_appended_to(child, tmp_path):
    child("print('first')")
    child("print('second')")
    assert (tmp_path / "log.txt").read_text() == "first\nsecond\n"


def test_environment_and_own_group(child):
    _, lines = child("import os; print(os.environ['LC_ALL'], os.getpgid(0) == os.getpid(), os.isatty(1))")
    assert lines == ["C True True"]


@pytest.mark.parametrize("stdin", ["yes\nno\n", None])
def test_stdin_text_or_nothing(child, stdin):
    _, lines = child("import sys; print(sys.stdin.read().split())", stdin=stdin)
    assert lines == [str((stdin or "").split())]


def test_stdin_from_a_file_longer_than_a_pipe(child, tmp_path):
    (tmp_path / "list").write_text("photo\n" * 100_000)
    done, lines = child("import sys; print(sum(1 for _ in sys.stdin))", stdin=tmp_path / "list")
    assert lines == ["100000"]
    with pytest.raises(InputError, match="absent"):
        child("", stdin=tmp_path / "absent")


def test_crash_keeps_the_lines_before_it(child):
    # stdout of the program is buffered as C does it, by line on a terminal; no flush here
    done, lines = child("import os, signal; print('Loaded: 0.1 seconds'); os.kill(os.getpid(), signal.SIGSEGV)")
    assert lines == ["Loaded: 0.1 seconds"]
    assert done.signal == "SIGSEGV" and done.returncode == -11
    assert explain(done).endswith("was ended by SIGSEGV; its last words: Loaded: 0.1 seconds")


def test_complaints_count_though_the_exit_code_is_0(child):
    done, _ = child(
        """
        for _ in range(72): print("Couldn't find activation function mish, going with ReLU")
        print("Couldn't open file: no.weights")
        """
    )
    assert done.returncode == 0
    assert done.complaints == (
        "Couldn't find activation function mish, going with ReLU",
        "Couldn't open file: no.weights",
    )
    assert explain(done).endswith(
        "ended with exit code 0 and complained: Couldn't find activation function mish, going with ReLU (and 1 more)"
    )


def test_explain_silence():
    assert explain(Finished("/usr/bin/darknet", 1, (), ())) == "darknet ended with exit code 1; it said nothing"


def test_flood_keeps_only_the_last_lines(child, tmp_path):
    done, lines = child("for i in range(200_000): print(i)", on_line=lambda line: None)
    assert done.last_lines == tuple(str(i) for i in range(199_980, 200_000))
    assert (tmp_path / "log.txt").read_text().count("\n") == 200_000


GRANDCHILD = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sub = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(99)"])
print(sub.pid, flush=True)
time.sleep(99)
"""


def test_exception_in_on_line_ends_child_and_grandchild_that_ignore_sigterm(child, monkeypatch):
    monkeypatch.setattr("fer.darknet.program_engine.process._GRACE", 0.3)
    seen = []

    def on_line(line):
        seen.append(line)
        if "deaf" in seen and len(seen) == 2:
            raise InputError("the loss is NaN")

    with pytest.raises(InputError, match="the loss is NaN"):
        child(GRANDCHILD, on_line)
    assert gone(int(next(line for line in seen if line != "deaf")))


def test_grandchild_that_holds_the_streams_does_not_keep_us(child):
    start = time.monotonic()
    done, lines = child(
        "import subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True)",
    )
    assert time.monotonic() - start < 4 and done.returncode == 0
    assert gone(int(lines[0]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_program(child, number):
    pids = []

    def on_line(line):
        pids.append(int(line))
        os.kill(os.getpid(), number)

    with pytest.raises(Interrupted) as stopped:
        child("import os, time; print(os.getpid(), flush=True); time.sleep(60)", on_line)
    assert stopped.value.signal == number
    assert gone(pids[0], 0)


def test_second_signal_kills_at_once(child):
    pids = []

    def on_line(line):
        pids.append(int(line))
        os.kill(os.getpid(), signal.SIGINT)
        threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()

    start = time.monotonic()
    with pytest.raises(Interrupted):
        child(
            "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True);"
            "time.sleep(60)",
            on_line,
        )
    assert time.monotonic() - start < 3  # the grace is 5 s
    assert gone(pids[0], 0)


def test_works_in_another_thread(child):
    results = []
    thread = threading.Thread(target=lambda: results.append(child("print('here')")))
    thread.start()
    thread.join()
    assert results[0][1] == ["here"]


def test_program_dies_with_us_even_when_we_are_killed(tmp_path):
    script = f"""
        from pathlib import Path
        from fer.darknet.program_engine.process import run
        run(["{sys.executable}", "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"],
            Path("{tmp_path}"), Path("{tmp_path}/log.txt"), lambda line: print(line, flush=True))
        """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as us:
        pid = int(us.stdout.readline())
        assert alive(pid)
        us.kill()
    assert gone(pid)


def test_full_disk_stops_the_program(tmp_path):
    pids = []
    arguments = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
    with pytest.raises(InputError, match="^/dev/full: No space left on device; .*make room") as error:
        run(arguments, tmp_path, Path("/dev/full"), pids.append)
    assert "\n" not in str(error.value) and pids == []


@pytest.mark.parametrize("program", ["/absent/darknet", "/etc/passwd"])
def test_what_cannot_be_started(tmp_path, program):
    with pytest.raises(InputError, match=f"^{program} can't be started in .*: (No such file|Permission denied)"):
        run([program], tmp_path, tmp_path / "log.txt", print)


def test_log_that_cannot_be_opened(tmp_path):
    with pytest.raises(InputError, match="absent/log.txt: No such file or directory"):
        run(["true"], tmp_path, tmp_path / "absent" / "log.txt", print)


@pytest.mark.darknet
def test_debians_program_exits_with_0_and_complains(tmp_path):
    done = run(
        ["darknet", "partial", "absent.cfg", "absent.weights", "out", "1"], tmp_path, tmp_path / "log.txt", print
    )
    assert done.returncode == 0
    assert done.complaints == ("Couldn't open file: absent.cfg",)
    assert explain(done) == "darknet ended with exit code 0 and complained: Couldn't open file: absent.cfg"
