"""The table: markdown, with the machine that it was measured on."""

import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from benchmarks.measure import Measurement
from benchmarks.rows import Row

HEADER = """| work | command | median s | CPU s | peak RSS MB | peak anonymous MB | ours / it | bar | |
| --- | --- | --: | --: | --: | --: | --: | --- | --- |"""

NOTES = """\
Every row: one warm-up, then the commands in turns; medians of time, largest peaks of memory. Commands are whole
processes, with those that they start; work marked "in process" is timed inside of it, without the start. CPU time is
that of all of them. Peak RSS is what `wait4` says of the largest one and what the bars compare: it counts touched pages
of mapped files too. Anonymous memory of all of them is sampled every 10 ms and shown beside it. MB is 10^6 bytes."""


@dataclass
class Outcome:
    """What came of one row.

    Attributes:
        row: The row.
        ours: The measurement that is judged; None where the command failed.
        references: The measurements of what it is compared with.
        failures: Commands that did not run, with their last words.
    """

    row: Row
    ours: Measurement | None = None
    references: dict[str, Measurement] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def table(outcomes: Iterable[Outcome]) -> str:
    """Return the table: for each row ours first, then what it is compared with."""
    lines = [HEADER]
    for outcome in outcomes:
        lines += _lines(outcome)
    return "\n".join(lines)


def document(outcomes: Iterable[Outcome], runs: int) -> str:
    """Return the whole report."""
    return f"# Benchmarks\n\n{machine(runs)}\n\n{NOTES}\n\n{table(outcomes)}\n"


def machine(runs: int) -> str:
    """Return a sentence on the machine, the interpreter and the packages."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = ("tfthaw", "numpy", "protobuf", "tensorflow-cpu", "keras")
    packages = ", ".join(f"{name} {_version(name)}" for name in names)
    return (
        f"{_processor()}, {os.cpu_count()} CPUs, {memory_gib:.0f} GiB, {platform.system()} {platform.release()}, "
        f"load {os.getloadavg()[0]:.1f}; Python {sys.version.split()[0]}, {packages}; {runs} runs."
    )


def _lines(outcome: Outcome) -> list[str]:
    lines, bars, ours = [], outcome.row.bars, outcome.ours
    if ours is not None:
        limits, reached = [], True
        for value, limit, text in (
            (ours.seconds, bars.seconds, f"≤ {bars.seconds} s"),
            (ours.rss_mb, bars.rss_mb, f"≤ {bars.rss_mb} MB"),
        ):
            if limit is not None:
                limits.append(text)
                reached &= value <= limit
        verdict = ("pass" if reached else "FAIL") if limits else ""
        lines.append(_line(outcome.row.work, ours, "", ", ".join(limits), verdict))
    for name, reference in outcome.references.items():
        ratio = None if ours is None else ours.seconds / reference.seconds
        limit = bars.ratios.get(name)
        shown = "" if limit is None else f"≤ {limit:g}"
        verdict = "" if ratio is None or limit is None else "pass" if ratio <= limit else "FAIL"
        work = outcome.row.work if ours is None else ""
        lines.append(_line(work, reference, "" if ratio is None else f"{ratio:.3g}", shown, verdict))
    for failure in outcome.failures:
        lines.append(f"| {outcome.row.work} | {failure.replace('|', '/')} | | | | | | | NOT MEASURED |")
    return lines


def _line(work: str, measured: Measurement, ratio: str, bar: str, verdict: str) -> str:
    return (
        f"| {work} | {measured.command.title} | {measured.seconds:.3g} | {measured.cpu_seconds:.3g} "
        f"| {measured.rss_mb:.0f} | {measured.anon_mb:.0f} | {ratio} | {bar} | {verdict} |"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
