"""What the tests of the command line share: the demo model, and ways to run a command."""

import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from tfthaw.cli.main import main

DEMO = Path(str(files("tfthaw.demo")))


@pytest.fixture
def demo(tmp_path):
    """The demo model in a directory of its own: `model.ckpt-1000.*` and its `checkpoint` file."""
    folder = tmp_path / "demo"
    folder.mkdir()
    for item in DEMO.iterdir():
        if item.name.startswith("model.ckpt-1000") or item.name == "checkpoint":
            shutil.copy(item, folder)
    return folder


@pytest.fixture
def run(capsys):
    """Run a command in this process: (exit status, stdout, stderr)."""

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def spawn():
    """Run a command in a process of its own."""

    def spawn(*arguments, **options):
        command = [sys.executable, "-m", "tfthaw", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)

    return spawn
