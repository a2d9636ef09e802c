"""Processes of our own: how they start, and that nothing of them outlives us.

A child starts without the current directory among the places that modules come from: a `random.py` that lies there is
the user's, and `python -m` would take it for the one of the standard library. It leads a session of its own, so that
what it starts can be ended with it. On Linux the kernel ends it when we are gone, whatever it is doing then.

Source: prctl(2) of Linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_START = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]
sys.path.append(sys.argv[1])
from tfthaw.runtime.child_processes import run_module
run_module(*sys.argv[2:])
"""
_PR_SET_PDEATHSIG = 1


def start(module: str, *arguments: str, environment: Mapping[str, str] | None = None, **pipes: Any
          ) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start a process that runs `main` of one of our modules.

    Args:
        module: The module.
        *arguments: What its `main` is given.
        environment: The environment of the process; None for ours.
        **pipes: What `subprocess.Popen` takes besides.
    """
    command = [sys.executable, "-c", _START, str(Path(__file__).parents[2]), module, str(os.getpid()), *arguments]
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def end(process: subprocess.Popen[bytes], *, after_seconds: float = 0.0) -> None:
    """End a process, and all that it started.

    Args:
        process: The process.
        after_seconds: How long it may take to end by itself.
    """
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after_seconds)
    with contextlib.suppress(OSError):  # nobody of the session is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_module(module: str, parent: str, *arguments: str) -> None:
    """Run `main` of a module, in the process that was started for it.

    Args:
        module: The module.
        parent: The process that started this one; this one ends when that is gone.
        *arguments: What `main` is given.
    """
    import importlib

    _end_with_parent(int(parent))
    importlib.import_module(module).main(*arguments)


def _end_with_parent(parent: int) -> None:
    """Let the kernel end this process when its parent is gone, which no Python thread could while another one runs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before it was asked for
            os._exit(1)
