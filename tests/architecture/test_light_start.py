"""The package starts without what only some work needs, in a process of its own each time."""

import subprocess
import sys

import pytest
from source_tree import module_name, sources

HEAVY = ("tensorflow", "tf_keras", "keras", "h5py", "onnxruntime")
MODULES = [module_name(path) for path in sources("src/tfthaw") if path.name != "__main__.py"]


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_every_module_imports_where_nothing_heavy_is_installed():
    done = run(f"""
import importlib, sys
for name in {HEAVY}:
    sys.modules[name] = None
for name in {MODULES}:
    importlib.import_module(name)
""")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["numpy", "google.protobuf", *HEAVY])
def test_import_tfthaw_alone_brings_nothing(name):
    done = run(f"import sys, tfthaw; sys.exit({name!r} in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_the_command_reads_an_artifact_without_anything_heavy():
    done = run(f"""
import sys
for name in {HEAVY}:
    sys.modules[name] = None
from importlib.resources import files
from tfthaw.cli.main import main
sys.exit(main(["inspect", str(files("tfthaw.demo") / "model.ckpt-1000.meta")]))
""")
    assert done.returncode == 0, done.stderr
    assert "probabilities:0" in done.stdout


def test_a_subcommand_loads_no_other_subcommand():
    done = run("""
import sys
from tfthaw.cli.main import COMMANDS, main
try:
    main(["inspect", "--help"])
except SystemExit:
    pass
others = [name for name in COMMANDS if name != "inspect" and f"tfthaw.cli.{name}" in sys.modules]
sys.exit(", ".join(others) or 0)
""")
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_of_names_is_inspected_without_numpy():
    done = run("""
import sys
sys.modules["numpy"] = None
from importlib.resources import files
from tfthaw.cli.main import main
sys.exit(main(["inspect", str(files("tfthaw.demo") / "model.ckpt-1000.index")]))
""")
    assert done.returncode == 0, done.stderr
    assert "conv1/kernel" in done.stdout
