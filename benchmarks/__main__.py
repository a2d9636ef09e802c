"""Measure every row, or those that `--only` names, and write the table to stdout and bench-out/bench.md."""

import argparse
import fnmatch
import sys

from benchmarks import inputs, report
from benchmarks.measure import ROOT, Command, MeasurementError, measure_in_turns, run
from benchmarks.rows import OUTPUTS, Row, rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default="*", help="a pattern for names of rows")
    parser.add_argument("--runs", type=int, default=5, help="runs of every command after the warm-up (default 5)")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    options = parser.parse_args()
    chosen = [row for row in rows() if fnmatch.fnmatchcase(row.name, options.only)]
    if options.list:
        print("\n".join(f"{row.name:16} {row.work}" for row in chosen))
        return 0
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for row in chosen:
        print(f"{row.name} ...", file=sys.stderr)
        outcomes.append(_measure(row, options.runs))
    text = report.document(outcomes, options.runs)
    (ROOT / "bench-out" / "bench.md").write_text(text)
    print(text)
    return 1 if any(outcome.failures for outcome in outcomes) else 0


def _measure(row: Row, runs: int) -> report.Outcome:
    """Measure a row; where a command fails, the others are still measured."""
    outcome = report.Outcome(row)
    working: dict[str, Command] = {}
    try:
        inputs.prepare(row.source)
        for name, command in {"": row.ours, **row.references}.items():
            try:
                run(command)  # warms up too
                working[name] = command
            except MeasurementError as error:
                outcome.failures.append(str(error))
        measured = dict(zip(working, measure_in_turns(list(working.values()), runs), strict=True))
    except MeasurementError as error:
        outcome.failures.append(str(error))
        return outcome
    outcome.ours = measured.pop("", None)
    outcome.references = measured
    return outcome


if __name__ == "__main__":
    raise SystemExit(main())
