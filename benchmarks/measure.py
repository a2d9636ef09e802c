"""Run commands and measure them: wall time and peak memory of the whole process.

This is no profiler and knows no command. The measuring process must stay small, since Linux counts the memory that a
child shares with its parent until `exec` into the child's peak; so nothing here, nor in what `python -m benchmarks`
imports, loads numpy or TensorFlow.

Source: getrusage(2) for `ru_maxrss`, proc_pid_status(5) for `RssAnon` and `PPid`.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.01
SAMPLES_PER_SEARCH = 20  # looking for new child processes reads the status of every process
TIMEOUT_SECONDS = 600
ROOT = Path(__file__).parents[1]


class MeasurementError(Exception):
    """A command failed, so that there is nothing to measure."""


@dataclass(frozen=True)
class Command:
    """One thing to measure.

    Attributes:
        title: What a reader would type.
        argv: The command.
        output: What it writes; removed before each run, outside of the time.
        in_process: Take the seconds that the process prints as `{"seconds": ...}`, instead of its wall time.
    """

    title: str
    argv: tuple[str, ...]
    output: Path | None = None
    in_process: bool = False


@dataclass(frozen=True)
class Sample:
    """One run.

    Attributes:
        seconds: Wall time of the process, or what it measured itself.
        cpu_seconds: Time on a CPU, user and system, of the process and its children; far from `seconds`, it tells of
            waiting or of several threads.
        rss_mb: Peak resident memory in MB (10^6 bytes), of the process or that child of it which had most; pages of
            mapped files that it touched count.
        anon_mb: Peak anonymous memory in MB, of the process and its children together, sampled, so that a peak of a few
            milliseconds can be missed.
    """

    seconds: float
    cpu_seconds: float
    rss_mb: float
    anon_mb: float


@dataclass(frozen=True)
class Measurement:
    """Medians of several runs of one command, with the largest peaks."""

    command: Command
    samples: tuple[Sample, ...]

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(sample.seconds for sample in self.samples)

    @property
    def cpu_seconds(self) -> float:
        """The median of the time on a CPU."""
        return statistics.median(sample.cpu_seconds for sample in self.samples)

    @property
    def rss_mb(self) -> float:
        """The largest peak of resident memory."""
        return max(sample.rss_mb for sample in self.samples)

    @property
    def anon_mb(self) -> float:
        """The largest sampled peak of anonymous memory."""
        return max(sample.anon_mb for sample in self.samples)


def measure_in_turns(commands: Sequence[Command], runs: int) -> list[Measurement]:
    """Run the commands `runs` times in turns, so that a slow minute hits all of them; the caller has warmed up.

    Raises:
        MeasurementError: A command failed.
    """
    rounds = [[run(command) for command in commands] for _ in range(runs)]
    for command in commands:
        _remove(command.output)
    return [Measurement(command, samples) for command, samples in zip(commands, zip(*rounds, strict=True), strict=True)]


def run(command: Command) -> Sample:
    """Run a command once.

    Raises:
        MeasurementError: It failed, or took longer than ten minutes.
    """
    _remove(command.output)
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        began = time.perf_counter()
        process = subprocess.Popen(command.argv, cwd=ROOT, env=_environment(), stdout=stdout, stderr=stderr)
        sampler = _AnonymousMemory(process.pid)
        timer = threading.Timer(TIMEOUT_SECONDS, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        timer.cancel()
        anon_bytes = sampler.stop()
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0), stderr.seek(0)
        if process.returncode != 0:
            lines = stderr.read().decode(errors="replace").strip().splitlines() or ["nothing on stderr"]
            raise MeasurementError(f"`{command.title}`: exit {process.returncode}: {lines[-1]}")
        if command.in_process:
            seconds = json.load(stdout)["seconds"]
    return Sample(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6, anon_bytes / 1e6)


class _AnonymousMemory:
    """Sample RssAnon of a process and of all that it started, until it is gone."""

    def __init__(self, pid: int) -> None:
        self._pids = [pid]
        self._peak_bytes = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._stopped.set()
        self._thread.join()
        return self._peak_bytes

    def _sample(self) -> None:
        count = 0
        while not self._stopped.wait(SAMPLE_SECONDS):
            count += 1
            if count % SAMPLES_PER_SEARCH == 0:
                self._pids = _with_descendants(self._pids[0])
            self._peak_bytes = max(self._peak_bytes, sum(1024 * _status(pid, "RssAnon") for pid in self._pids))


def _with_descendants(root: int) -> list[int]:
    """Return a process and all below it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            children.setdefault(_status(int(path.name), "PPid"), []).append(int(path.name))
    found = [root]
    for pid in found:  # grows while it is walked
        found += children.get(pid, [])
    return found


def _status(pid: int, field: str) -> int:
    """Return a number from the status of a process; 0 where it has just ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{field}:")), 0)


def _environment() -> dict[str, str]:
    # TensorFlow's modules were compiled when it was installed; without compiled ones of its own, tfthaw would pay anew
    # in every run
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONWARNINGS": "ignore"}


def _remove(path: Path | None) -> None:
    if path is None:
        return
    for found in path.parent.glob(f"{path.name}*"):
        if found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink()


def python(*argv: str | Path) -> tuple[str, ...]:
    """Return the command line that runs this interpreter on argv."""
    return (sys.executable, *(str(arg) for arg in argv))
