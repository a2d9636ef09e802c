"""The `tfthaw` command: parse the arguments, run one subcommand, turn errors into one message and an exit status.

0  done, or same
1  the answer is no (differs, does not verify, restore incomplete)
2  it could not be done (bad usage, unreadable, unsupported, missing extra)
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import NoReturn

from tfthaw.errors import RestoreError, TfthawError, VerificationError

COMMANDS = {
    "inspect": "what it is, what is in it, who made it, what it can become",
    "convert": "any artifact into any format it can become, proved",
    "diff": "two artifacts: tensors, graph, signatures",
    "freeze-graph": "TensorFlow's freeze_graph, flag for flag",
    "export-inference-graph": "export a detection model, as the object detection API does",
    "demo": "a real model through the whole tool, on data that ships with it",
}
"""Subcommand -> what it does; each is a module of this folder (`-` is `_`) with `add_arguments` and `run`."""

EXIT_NO = 1
EXIT_FAILED = 2


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors look like all other errors."""

    def error(self, message: str) -> NoReturn:
        print(f"tfthaw: {message}\n{self.format_usage().strip()}", file=sys.stderr)
        raise SystemExit(EXIT_FAILED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The arguments, without the command's name; None takes those of the process.

    Returns:
        The exit status.
    """
    # numpy starts a thread for each processor when it is imported, for linear algebra of which there is none here
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _ending_cleanly():
            return _run(given)
    except KeyboardInterrupt:
        print("tfthaw: interrupted; nothing was left half-written", file=sys.stderr)
        return 128 + signal.SIGINT
    except _Ended as ended:
        return 128 + ended.number


def _run(given: list[str]) -> int:
    """Parse arguments, run the subcommand, and print what goes wrong."""
    parser = _parser(given)
    options = parser.parse_args(given)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        module = _module(options.command)
        status = module.run(options)
        sys.stdout.flush()
        return int(status)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it flushes
        return EXIT_FAILED
    except TfthawError as error:
        if options.verbose:
            import traceback

            traceback.print_exc()
        print(f"tfthaw: {error}", file=sys.stderr)
        return EXIT_NO if isinstance(error, (VerificationError, RestoreError)) else EXIT_FAILED


class _Ended(BaseException):
    """The process was asked to end; files and processes of ours are put away on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _ending_cleanly() -> Iterator[None]:
    """Let the signals that end a process end it as Ctrl-C does, which leaves nothing behind."""

    def end(number: int, _frame: object) -> None:
        raise _Ended(number)

    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    former = {number: signal.signal(number, end) for number in numbers
              if signal.getsignal(number) is signal.SIG_DFL}  # fmt: skip
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"tfthaw.cli.{command.replace('-', '_')}")


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser; only the subcommand that is run is imported, which keeps the start short."""
    from tfthaw import __version__

    parser = _Parser(
        prog="tfthaw",
        description="Any TensorFlow model artifact in, whatever you need out, with proof that it is the same model.",
        epilog="Exit status: 0 done or same; 1 the answer is no; 2 it could not be done.",
    )
    parser.add_argument("--version", action="version", version=f"tfthaw {__version__}")
    parser.set_defaults(verbose=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        if name in given:
            module = _module(name)
            module.add_arguments(command)
            command.epilog = module.EXAMPLES
        command.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
        command.add_argument("-v", "--verbose", action="store_true", help="show more, and the traceback of an error")
    return parser
