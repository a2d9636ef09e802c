"""The process that runs the user's code: what comes back, and what it never does to ours."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from tfthaw import demo
from tfthaw.errors import NotFoundError, RuntimeFailure, UnsupportedError, UsageError
from tfthaw.ir.input_specs import parse_inputs
from tfthaw.runtime import code_process
from tfthaw.runtime.code_process import CodeProcess
from tfthaw.runtime.endpoints import Request
from tfthaw.runtime.isolated import Run, run_isolated
from tfthaw.tensors import ArrayTensor

pytestmark = pytest.mark.tf

CODE = """
    import os
    import sys
    import tensorflow as tf
    from absl import flags

    flags.DEFINE_integer("units", 2, "")
    print("printed while imported")
    os.write(1, b"written to the descriptor\\n")

    class Net(tf.Module):
        def __init__(self):
            self.kernel = tf.Variable(tf.zeros([3, flags.FLAGS.units]), name="kernel")

        @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x")])
        def __call__(self, x):
            return x @ self.kernel

    def build():
        print("printed while built", sys.stdin.read())
        return Net()

    def serve(model, x: tf.TensorSpec([3])):
        return model(x[tf.newaxis])

    def waits():
        import time
        print("waiting", os.getpid(), flush=True)
        time.sleep(600)

    def keeps_the_interpreter():
        import re
        print("waiting", os.getpid(), flush=True)
        re.match("(a|a)*b", "a" * 60)  # no other thread runs meanwhile

    def starts_another():
        import subprocess
        another = subprocess.Popen(["sleep", "600"])
        print("waiting", os.getpid(), another.pid, flush=True)
        raise ValueError("none")

    def starts_another_and_waits():
        import subprocess, time
        another = subprocess.Popen(["sleep", "600"])
        print("waiting", os.getpid(), another.pid, flush=True)
        time.sleep(600)
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A file of the user's, in the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(textwrap.dedent(CODE))
    return tmp_path / "train.py"


def started(spec, *inputs, **signatures):
    return CodeProcess(spec, Request(parse_inputs(inputs), signatures, code=spec))


def is_running(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_model_is_traced_and_run_with_given_values(code, capfd):
    with started("train.py:build", serving_default="__call__", one="train:serve") as live:
        assert live.traced.runtime.startswith("tensorflow 2.")
        assert live.traced.path.stat().st_size
        (kernel,) = [variable for variable in live.traced.objects.variables() if variable.node]
        values = {kernel.node: ArrayTensor(np.full((3, 2), 2.0, "f4"))}
        x = np.ones((4, 3), "f4")
        found = live.run({"x:0": x}, [output_of(live)], values)
        assert found[output_of(live)].tolist() == [[6.0, 6.0]] * 4
        with pytest.raises(RuntimeFailure, match="does not run"):
            live.run({"x:0": np.ones((4, 5), "f4")}, [output_of(live)], values)
        images = np.zeros((2, 8, 8, 1), "f4")
        answer = live.run_artifacts([[Run(demo.META_GRAPH, {"images:0": images}, ["probabilities:0"])]])
        assert answer.runtime == live.traced.runtime
        assert answer.outputs[0]["probabilities:0"].shape == (2, 10)
        folder = live.traced.path.parent
        child = live._child._process.pid
        with pytest.raises(RuntimeFailure, match="still running after 0 s and was ended"):
            live._child.answer(seconds=0.0)  # to nothing that was asked
    assert not folder.exists()
    assert not is_running(child)
    said = capfd.readouterr()
    assert said.out == ""
    for text in ("printed while imported", "written to the descriptor", "printed while built"):
        assert text in said.err
    assert "oneDNN" not in said.err
    assert "WARNING" not in said.err


def output_of(live):
    """Return the first output's tensor of the traced graph."""
    from tfthaw.serde.artifacts import open_artifact

    with open_artifact(live.traced.path) as artifact:
        (output,) = artifact.signatures["serving_default"].outputs.values()
        return output.tensor


@pytest.mark.parametrize(
    ("script", "said"),
    [("exit 7", r"ended its process \(status 7\)"), ("kill -SEGV $$", r"crashed \(SIGSEGV\)$"),
     ("kill -KILL $$", r"crashed \(SIGKILL\); a system that is out of memory")],
)  # fmt: skip
def test_a_process_that_dies_is_told(code, monkeypatch, tmp_path, script, said):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with started("train.py:build") as live, pytest.raises(RuntimeFailure, match=said):
        assert live.traced


@pytest.mark.parametrize("spec", ["train.py", "trian.py:build"])
def test_nothing_is_started_for_a_spec_that_is_none(code, monkeypatch, spec):
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises((UsageError, NotFoundError)):
        started(spec)


def interruptible():
    """Let a process be interrupted, also where the tests run in the background and may not be."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class TestWhoEnds:
    PARENT = (
        "from tfthaw.runtime.code_process import CodeProcess\n"
        "from tfthaw.runtime.endpoints import Request\n"
        "with CodeProcess('train.py:waits', Request(code='train.py:waits')) as live:\n"
        "    live.traced\n"
    )

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
    @pytest.mark.parametrize("name", ["waits", "keeps_the_interpreter"])
    def test_the_child_ends_with_its_parent(self, code, name, how):
        command = [sys.executable, "-c", self.PARENT.replace("waits", name)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible) as parent:
            (child,) = announced(parent)
            parent.send_signal(how)
            parent.wait(20)
        require_ended(child)

    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, None])
    def test_what_the_code_started_ends_with_the_command(self, code, how, tmp_path, monkeypatch):
        monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
        (tmp_path / "temporary").mkdir()
        command = [sys.executable, "-m", "tfthaw", "convert", str(demo.DIRECTORY / "model.ckpt-1000"), "out/frozen.pb",
                   "--to", "frozen-graph", "--code", "train.py:starts_another" if how is None else
                   "train.py:starts_another_and_waits"]  # fmt: skip
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible) as parent:
            started = announced(parent)
            if how is not None:
                parent.send_signal(how)
            assert parent.wait(60) == (2 if how is None else 128 + how)
            said = parent.stderr.read()
        for process in started:
            require_ended(process)
        assert "Traceback" not in said
        assert not list((tmp_path / "temporary").iterdir())
        assert not Path("out").exists() or not list(Path("out").iterdir())


def announced(parent):
    """Return the processes that the user's code says are there."""
    for line in parent.stderr:
        if line.startswith("waiting"):
            found = [int(word) for word in line.split()[1:]]
            assert all(map(is_running, found))
            return found
    raise AssertionError("it said nothing")


def require_ended(process):
    until = time.monotonic() + 20
    while is_running(process) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(process)


class TestWhatIsBesideTheCode:
    """Files of the user's that are called like modules of Python."""

    @pytest.mark.parametrize("name", ["random", "json", "queue", "types", "numpy", "tfthaw"])
    def test_they_are_not_taken_for_those(self, code, name):
        (code.parent / f"{name}.py").write_text("open('taken', 'w').close()\nprint('taken')\nX = 1\n")
        with started("train.py:build") as live:
            assert live.traced
        assert not Path("taken").exists()

    def test_nor_where_artifacts_are_run(self, code):
        (code.parent / "random.py").write_text("open('taken', 'w').close()")
        images = np.zeros((2, 8, 8, 1), "f4")
        assert run_isolated([[Run(demo.META_GRAPH, {"images:0": images}, ["probabilities:0"])]]).runtime
        assert not Path("taken").exists()

    def test_the_code_may_be_called_so_itself(self, code):
        code.rename(code.with_name("json.py"))
        with started("json.py:build") as live:
            assert live.traced


class TestStartingAnew:
    def test_code_for_keras_2_runs_under_keras_2(self, code, monkeypatch):
        monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
        code.write_text(
            "import tensorflow as tf\nv1 = tf.compat.v1\n"
            "def build():\n  x = v1.placeholder(tf.float32, [None, 4], 'x')\n  return v1.layers.dense(x, 2)\n"
        )
        with started("train.py:build") as live:
            assert any("TF_USE_LEGACY_KERAS=1" in note for note in live.traced.notes)
            assert {variable.names[0] for variable in live.traced.objects.variables()} == {"dense/kernel", "dense/bias"}
        assert "TF_USE_LEGACY_KERAS" not in os.environ

    def test_code_that_chooses_keras_2_by_itself_has_it(self, code, monkeypatch):
        monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
        code.write_text(
            "import os\nos.environ['TF_USE_LEGACY_KERAS'] = '1'\nimport tensorflow as tf\n"
            "def build():\n  return tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])\n"
        )
        with started("train.py:build") as live:
            assert live.traced.objects.keras == 2

    def test_code_that_fails_under_both_is_told_of_both(self, code, monkeypatch):
        monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
        code.write_text("import tensorflow as tf\ndef build():\n  return tf.keras.layers.NoSuchLayer()\n")
        with started("train.py:build") as live, pytest.raises(UsageError, match="NoSuchLayer") as caught:
            assert live.traced
        assert "under Keras 2 (tf_keras) it fails as well" in caught.value.hint

    def test_without_keras_2_it_is_not_tried(self, monkeypatch):
        monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
        assert code_process._can_use_legacy_keras()
        monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
        assert not code_process._can_use_legacy_keras(), "the user has chosen"
        monkeypatch.delenv("TF_USE_LEGACY_KERAS")
        monkeypatch.setattr(code_process.importlib.util, "find_spec", lambda name: None)
        assert not code_process._can_use_legacy_keras()

    def test_a_graph_that_is_built_while_the_module_is_imported(self, code):
        code.write_text(
            "import tensorflow.compat.v1 as tf\ntf.reset_default_graph()\n"
            "x = tf.placeholder(tf.float32, [None, 3], 'x')\nw = tf.get_variable('w', [3, 2])\n"
            "outputs = {'y': tf.matmul(x, w)}\n"
        )
        with started("train.py:outputs") as live:
            assert [variable.node for variable in live.traced.objects.variables()] == ["w"]

    def test_code_that_switches_eager_execution_off_and_clears_graphs(self, code):
        code.write_text(
            "import tensorflow.compat.v1 as tf\ntf.disable_v2_behavior()\n"
            "def build():\n  tf.reset_default_graph()\n  x = tf.placeholder(tf.float32, [None, 3], 'x')\n"
            "  return x, tf.matmul(x, tf.get_variable('w', [3, 2]))\n"
        )
        with started("train.py:build") as live:
            assert [variable.node for variable in live.traced.objects.variables()] == ["w"]

    def test_so_is_one_that_it_imports(self, code):
        code.with_name("helper.py").write_text(
            "import tensorflow as tf\nmodel = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])\n"
            "model.compile(loss='mse')\nmodel.fit(tf.zeros([4, 2]), tf.zeros([4, 1]))\n"
        )
        code.write_text("from helper import model")
        with started("train.py:model") as live, pytest.raises(UsageError, match=r"helper.py:4.*trains while"):
            assert live.traced

    def test_a_module_that_trains_is_refused(self, code):
        code.write_text(
            "import tensorflow as tf\n"
            "model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])\n"
            "model.compile(loss='mse')\nmodel.fit(tf.zeros([4, 2]), tf.zeros([4, 1]))\n"
        )
        with started("train.py:model") as live, pytest.raises(UsageError, match=r"line 4 .*trains while") as caught:
            assert live.traced
        assert "model.fit(tf.zeros([4, 2]), tf.zeros([4, 1]))" in str(caught.value.__cause__), "what -v shows"


CONSTANTS = """
    import numpy as np
    import tensorflow as tf
    {module}
    class Net(tf.Module):
        def __init__(self):
            self.kernel = tf.Variable(tf.ones([3, 3]), name="kernel")

        @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x")])
        def __call__(self, x):
            return x @ self.kernel * {factor}

    net = Net()
"""


class TestConstants:
    """What the code computes, and no checkpoint holds, is computed in another process too."""

    def trace(self, code, target, factor, module=""):
        code.write_text(textwrap.dedent(CONSTANTS).format(factor=factor, module=module))
        with started(f"train.py:{target}") as live:
            return live.traced.notes

    @pytest.mark.parametrize("target", ["Net", "net"])
    @pytest.mark.parametrize(
        ("factor", "module"),
        [("KEPT", "KEPT = np.random.normal(size=3).astype('f')"), ("np.random.randint(2**20)", ""),
         ("KEPT", "KEPT = float(tf.reduce_sum(tf.Variable(tf.ones([2]))))"),
         ("tf.cast(tf.strings.length(list({'a' * n for n in range(1, 99)}))[:3], tf.float32)", "")],
        ids=["of the module", "of each trace", "of initial values", "in the order of a set"],
    )  # fmt: skip
    def test_other_ones_are_refused(self, code, target, factor, module):
        with pytest.raises(UnsupportedError, match="come out differently each time"):
            self.trace(code, target, factor, module)

    @pytest.mark.parametrize(
        ("factor", "module"),
        [("KEPT", "np.random.seed(4)\nKEPT = np.random.normal(size=3).astype('f')"), ("[0.485, 0.456, 0.406]", ""),
         ("np.sin(np.arange(3.0)).astype('f')", "")],
        ids=["seeded", "written", "computed"],
    )  # fmt: skip
    def test_equal_ones_are_taken(self, code, factor, module):
        assert not [note for note in self.trace(code, "Net", factor, module) if "twice" in note]

    def test_code_that_runs_once_is_told_of(self, code):
        once = "import os\nif os.path.exists('ran'):\n  raise ValueError('only once')\nopen('ran', 'w').close()"
        (note,) = self.trace(code, "Net", "np.sin(np.arange(3.0)).astype('f')", once)
        assert "cannot be run twice" in note
        assert "only once" in note


class TestWays:
    """A builder is called once in a process, whatever it turns out to need."""

    BUILDER = (
        "import tensorflow as tf\nv1 = tf.compat.v1\ncount = 0\n"
        "def build():\n  global count\n  count += 1\n  w = tf.Variable(tf.zeros([3, 3]), name=f'fc{count}')\n"
    )

    @pytest.mark.parametrize(
        "rest",
        ["  x = v1.placeholder(tf.float32, [None, 3], 'x')\n  return x, tf.matmul(x, w)",
         "  x = getattr(v1, 'place' + 'holder')(tf.float32, [None, 3], 'x')\n  return x, tf.matmul(x, w)",
         "  net = tf.Module()\n  net.w = w\n  net.f = tf.function(lambda x: x @ net.w, "
         "input_signature=[tf.TensorSpec([None, 3])])\n  return net",
         "  v1.placeholder\n  net = tf.Module()\n  net.w = w\n  net.f = tf.function(lambda x: x @ net.w, "
         "input_signature=[tf.TensorSpec([None, 3])])\n  return net"],
        ids=["a graph", "a graph that does not look like one", "a module", "a module that looks like a graph"],
    )  # fmt: skip
    def test_names_are_those_of_the_first_call(self, code, rest):
        code.write_text(self.BUILDER + rest)
        with started("train.py:build") as live:
            assert [variable.node for variable in live.traced.objects.variables()] == ["fc1"]

    def test_a_model_that_is_not_returned(self, code):
        code.write_text("import tensorflow as tf\ndef build():\n  tf.keras.Sequential([tf.keras.layers.Dense(1)])\n")
        with started("train.py:build") as live, pytest.raises(UsageError, match="builds a model and gives nothing"):
            assert live.traced

    def test_eager_execution_that_models_of_keras_3_need(self, code):
        code.write_text(
            "import tensorflow as tf\ntf.compat.v1.disable_eager_execution()\n"
            "def build():\n  return tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])\n"
        )
        with started("train.py:build") as live, pytest.raises(UsageError, match="take disable_eager_execution"):
            assert live.traced


def convert(*arguments):
    """Run the command line; return the finished process."""
    command = [sys.executable, "-m", "tfthaw", "convert", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class TestCommandLine:
    CHECKPOINT = demo.DIRECTORY / "model.ckpt-1000"
    WRONG = Path(__file__).resolve().parents[1] / "wrong_code" / "models.py"

    def test_one_message_and_nothing_on_stdout(self, code):
        wrong = f"{self.WRONG}:if_on_many"
        done = convert(self.CHECKPOINT, "out.pb", "--to", "frozen-graph", "--code", wrong, "--json")
        assert done.returncode == 2
        assert done.stdout == ""
        assert "the condition of this `if` is a tensor of the shape (3,)" in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert not Path("out.pb").exists()

    def test_a_file_that_is_not_there_is_told_at_once(self, code):
        done = convert(self.CHECKPOINT, "out.pb", "--to", "frozen-graph", "--code", "trian.py:build")
        assert done.returncode == 2
        assert done.stderr == "tfthaw: trian.py: there is no such file; there are: train.py\n"
