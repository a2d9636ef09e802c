"""Runs tfthaw's commands on hostile artifacts and judges how they end.

Each case runs in a forked child of a small server process, with limits on memory and time, through the real `main` of
the command line. A command must end right (status 0 or 1) or as one message of one `TfthawError` that names the path;
it may leave nothing half-written, use no more than 2 seconds of CPU (times how much slower this machine is than the
reference) and no more than 200 MB. Everything else is a problem, and comes back as a sentence.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

MAX_CPU_SECONDS = 2.0
MAX_RESIDENT_BYTES = 200 << 20
_ADDRESS_BYTES = 6 << 30
_KILL_CPU_SECONDS = 30
_KILL_SECONDS = 120
_REFERENCE_SECONDS = 0.05  # what `_speed` takes on the machine that the limits were set on


@dataclass(frozen=True)
class Case:
    """One hostile artifact.

    Attributes:
        name: What is wrong with it.
        path: What is given to the commands.
        must_fail: Whether no conversion of it may succeed.
        options: Options of conversions into formats with a graph.
        formats: What to convert it into.
        allowance: What the limits are multiplied by, for artifacts that are as large as they claim.
    """

    name: str
    path: str
    must_fail: bool = False
    options: tuple[str, ...] = ()
    formats: tuple[str, ...] = ("checkpoint", "safetensors")
    allowance: int = 1


class Judge:
    """A server process that runs cases, one after the other.

    Args:
        good: A valid artifact, for `diff` to compare with.
        scratch: A directory for what conversions write.
        max_cpu_seconds: What one command may take.
    """

    def __init__(self, good: str, scratch: Path, max_cpu_seconds: float = MAX_CPU_SECONDS) -> None:
        self.good = good
        self.scratch = scratch
        self.max_cpu_seconds = max_cpu_seconds
        self._server = subprocess.Popen(
            [sys.executable, "-W", "error", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def problems(self, case: Case) -> list[str]:
        """Run every command on a case and return what is wrong with how they ended."""
        job = {
            "name": case.name,
            "path": case.path,
            "must_fail": case.must_fail,
            "options": case.options,
            "formats": case.formats,
            "good": self.good,
            "scratch": str(self.scratch),
            "allowance": case.allowance,
            "max_cpu_seconds": self.max_cpu_seconds,
        }
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return [f"{case.name}: {problem}" for problem in json.loads(self._server.stdout.readline())]

    def close(self) -> None:
        """End the server."""
        self._server.stdin.close()
        self._server.wait(timeout=10)
        self._server.stdout.close()


def _serve() -> None:
    import h5py  # noqa: F401  # what a case needs is loaded once, here

    import tfthaw.cli.convert
    import tfthaw.cli.diff
    import tfthaw.cli.inspect
    import tfthaw.cli.main  # noqa: F401

    factor = max(1.0, _speed() / _REFERENCE_SECONDS)
    for line in sys.stdin:
        print(json.dumps(_in_child(json.loads(line), factor)), flush=True)


def _speed() -> float:
    """Return how many seconds of CPU a fixed piece of work takes here."""
    began = time.process_time()
    sum(number * number % 7 for number in range(600_000))
    return time.process_time() - began


def _in_child(job: dict, factor: float) -> list[str]:
    """Run a case in a forked child and collect its problems, its death included."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_BYTES, _ADDRESS_BYTES))
            resource.setrlimit(resource.RLIMIT_CPU, (_KILL_CPU_SECONDS, _KILL_CPU_SECONDS))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.alarm(_KILL_SECONDS)
            os.fsync = lambda _: None  # thousands of outputs that nobody needs after a power cut
            with os.fdopen(writing, "w") as pipe:
                json.dump(_judged(job, factor), pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, ended = os.waitpid(child, 0)
    if os.WIFSIGNALED(ended):
        return [f"the process died of {signal.Signals(os.WTERMSIG(ended)).name}"]
    return json.loads(said) if said else ["the process ended without a word"]


def _commands(job: dict, out: Path) -> list[list[str]]:
    path = job["path"]
    commands = [["inspect", "--", path], ["inspect", "--json", "--", path]]
    for to in job["formats"]:
        options = job["options"] if to in ("frozen-graph", "graph-def", "saved-model", "meta-graph") else []
        # TensorFlow is never given these: it may crash where it pleases, and the process with it
        commands.append(["convert", "--verify", "weights", "--to", to, *options, "--", path, str(out / "result")])
    if job["allowance"] == 1:  # large ones are read often enough
        commands.append(["diff", "--", path, path])
    return [*commands, ["diff", "--json", "--", job["good"], path]]


def _judged(job: dict, factor: float) -> list[str]:
    problems = []
    folder = Path(job["path"]).parent
    before = _listing(folder)
    for number, command in enumerate(_commands(job, Path(job["scratch"]) / "out")):
        out = Path(job["scratch"]) / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        shown = " ".join(command[: command.index("--")])
        began = time.process_time()
        status, stdout, stderr = _run(command)
        seconds = time.process_time() - began
        problems += [f"{shown}: {problem}" for problem in _faults(job, command, status, stdout, stderr, folder.name)]
        written = sorted(os.listdir(out))
        if (written and status != 0) or any(name.startswith(".") for name in written):
            problems.append(f"{shown}: it left {written} with status {status}")
        if seconds > job["max_cpu_seconds"] * factor * job["allowance"]:
            problems.append(f"{shown}: it took {seconds:.1f} s of CPU")
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        if resident > MAX_RESIDENT_BYTES * job["allowance"]:
            problems.append(f"{shown}: it used {resident >> 20} MB of memory by command {number}")
            break
    if _listing(folder) != before:
        problems.append(f"the artifact's own folder has changed: {before} -> {_listing(folder)}")
    return problems


def _listing(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listdir(folder))
    return []


def _run(command: list[str]) -> tuple[int | str, str, str]:
    """Run one command in this process; a status that is text is what escaped."""
    from tfthaw.cli.main import main

    stdout, stderr = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            status: int | str = main(command)
    except BaseException:  # noqa: BLE001  # whatever it is, it is what this looks for
        status = "".join(traceback.format_exc().splitlines(keepends=True)[-7:])
    return status, stdout.getvalue(), stderr.getvalue()


def _faults(job: dict, command: list[str], status: int | str, stdout: str, stderr: str, folder: str) -> list[str]:
    """Return what is wrong with how a command ended."""
    if not isinstance(status, int):
        return [f"an exception came out:\n{status}"]
    problems = []
    if status == 0 and job["must_fail"] and command[0] == "convert":
        problems.append("it succeeded, and must not")
    if status == 0 and stderr:
        problems.append(f"it succeeded and wrote to stderr: {stderr!r}")
    answered = status == 1 and command[0] == "diff" and not stderr
    if status != 0 and not answered:
        if not stderr.startswith("tfthaw: ") or stderr.count("tfthaw: ") != 1 or "Traceback" in stderr:
            problems.append(f"expected one message, found {stderr!r}")
        if folder not in stderr and str(Path(job["good"]).parent) not in stderr:
            problems.append(f"the message names no path: {stderr!r}")
        if stdout:
            problems.append(f"it failed and wrote to stdout: {stdout[:200]!r}")
        if len(stderr) > 20_000:
            problems.append(f"the message has {len(stderr)} characters")
    if "--json" in command and (status == 0 or answered):
        try:
            json.loads(stdout)
        except ValueError:
            problems.append(f"no JSON document: {stdout[:200]!r}")
    return problems


if __name__ == "__main__":
    _serve()
