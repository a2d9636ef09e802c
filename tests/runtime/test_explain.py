"""What is said of code that cannot be exported: one message, the user's own line, the cure."""

import sys
import warnings
from pathlib import Path

import pytest

from tfthaw.errors import MissingDependencyError, RuntimeFailure, TfthawError, UsageError
from tfthaw.ir.input_specs import parse_inputs
from tfthaw.runtime import explain as explaining
from tfthaw.runtime.endpoints import Request
from tfthaw.runtime.explain import checked_result, explain, message_of, needs_graph_mode, needs_legacy_keras

MODELS = Path(__file__).resolve().parents[1] / "wrong_code" / "models.py"
SOURCE = MODELS.read_text().splitlines()


def line_of(text):
    (number,) = [number for number, line in enumerate(SOURCE, 1) if line.strip() == text]
    return number


@pytest.fixture
def error_of(tf, tmp_path):
    """Return the error of tracing a function of the wrong code."""
    from tfthaw.runtime.trace import trace
    from tfthaw.runtime.user_code import load_code

    def found(name, *inputs):
        spec = f"{MODELS}:{name}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target = load_code(spec).target
            with pytest.raises(TfthawError) as caught:
                trace(target, Request(parse_inputs(inputs), code=spec), tmp_path)
        assert caught.value.path == spec
        return caught.value

    return found


@pytest.mark.tf
class TestCode:
    @pytest.mark.parametrize(
        ("name", "kind", "line", "message", "cure"),
        [
            ("raises", RuntimeFailure, 'return tf.keras.layers.Dense(settings["unit"])',
             "cannot build the model: KeyError: 'unit'", ""),
            ("needs_arguments", UsageError, "", "needs arguments: units", "def exported"),
            ("gives_a_number", UsageError, "", "gives an int (3), which cannot be exported", "return a Keras model"),
            ("gives_nothing", UsageError, "", "built no graph", "return the model"),
            ("gives_two_models", UsageError, "", "a tuple of 2 things (Sequential, Sequential)", "dict of functions"),
            ("gives_a_list_of_models", UsageError, "", "a list of 1 things (Sequential)", "the one model"),
            ("gives_a_generator", UsageError, "", "gives a generator", "`return`"),
            ("gives_an_optimizer_too", UsageError, "", "a tuple of 2 things (Sequential, Adam)", "the one model"),
            ("gives_a_history", UsageError, "", "the History of a training", "return the model itself"),
            ("shapes_do_not_fit", UsageError, "return tf.keras.Sequential([tf.keras.Input((4,)), dense])",
             "the shapes do not fit", "--input"),
            ("never_called", UsageError, "", "nothing says what this Subclassed takes", "model(tf.zeros("),
            ("FreshVariables", UsageError, "scale = tf.Variable(2.0)", "new variables each time", "__init__"),
            ("without_signature", UsageError, "", "has no signature", "--input 'x:float32[?,784]'"),
            ("if_on_many", UsageError, None, "`if` is a tensor of the shape (3,)", "tf.where(condition, a, b)"),
            ("and_on_many", UsageError, "if x > 0 and tf.reduce_sum(x) > 1:", "tensor of the shape (None, 3) decides",
             "tf.where(condition, a, b)"),
            ("choice_on_many", UsageError, "return x if 0 < x < 1 else -x", "tensor of the shape (None, 3) decides",
             "tf.logical_and"),
            ("cond_on_many", UsageError, "return tf.cond(x > 0, lambda: x, lambda: -x)",
             "tensor of the shape (None, 3) decides", "tf.reduce_any"),
            ("if_without_autograph", UsageError, None, "asks for the value of a tensor", "tf.where(condition, a, b)"),
            ("if_in_a_graph", UsageError, "return x if x[0] > 0 else -x", "asks for the value of a tensor", "tf.where"),
            ("numpy_inside", UsageError, "return x * x.numpy().max()", "into a numpy array", "TensorFlow's own"),
            ("one_branch", UsageError, None, "`y` is given a value in one branch", "before the `if`"),
            ("inner_shapes", UsageError, "return tf.matmul(x, tf.ones([4, 2]))",
             "the shapes do not fit: 3 and 4 must be equal (shapes [2,3], [4,2])", "--input"),
            ("raises_while_traced", RuntimeFailure, 'return x * {}["scale"]', "KeyError: 'scale'", ""),
            ("tensorflow_1", UsageError, "x = tf.placeholder(tf.float32, [None, 4])", "is for TensorFlow 1: tf.place",
             "import tensorflow.compat.v1 as tf"),
            ("contrib", UsageError, "return tf.contrib.layers.fully_connected(None, 3)", "tf.contrib", "tf_slim"),
            ("clears_its_graph", UsageError, "v1.reset_default_graph()", "clears the graph", "take tf.reset"),
            ("unknown_op", UsageError, 'return tf.Graph(), tf.import_graph_def(_graph_with("NoSuchOp"))',
             "the op NoSuchOp is not known", "tf.load_op_library"),
        ],
    )  # fmt: skip
    def test_one_message_with_the_line_and_the_cure(self, error_of, name, kind, line, message, cure):
        error = error_of(name)

        assert type(error) is kind
        assert message in error.message
        assert cure in (error.hint or "")
        if line:
            assert error.where.startswith(f"line {line_of(line)} ")
            assert f"(`{line}`)" in error.where
        elif line is None:
            assert "(`if x > 0:`)" in error.where
            assert f" in {name} " in error.where
        assert "\n" not in str(error)
        assert len(str(error)) < 1200

    def test_layers_that_are_made_at_each_call(self, error_of):
        error = error_of("FreshLayers", "x:float32[?,3]")
        assert "new variables each time" in error.message
        assert "(`return tf.keras.layers.Dense(2)(x)`)" in error.where

    def test_an_input_of_another_shape_than_the_model_has(self, error_of):
        error = error_of("inner_shapes", "x:float32[5,5]")
        assert isinstance(error, UsageError)


@pytest.mark.tf
class TestKeras2Code:
    NAMES = ("positional_name", "legacy_optimizer", "layers_of_version_1", "op_on_keras_tensor", "removed_argument",
             "removed_layer")  # fmt: skip

    @pytest.mark.parametrize("name", NAMES)
    def test_it_is_told_what_to_set(self, error_of, name):
        error = error_of(name)
        assert isinstance(error, UsageError)
        assert "TF_USE_LEGACY_KERAS=1" in error.hint
        assert error.where.startswith("line ")
        assert needs_legacy_keras(error.__cause__)

    def test_it_is_told_what_to_install(self, error_of, monkeypatch):
        monkeypatch.setattr(explaining.importlib.util, "find_spec", lambda name: None)
        assert 'pip install "tf_keras~=2.' in error_of("legacy_optimizer").hint

    def test_where_keras_2_is_on_already_it_is_not_the_cure(self, tf, monkeypatch):
        error = ValueError("`keras.optimizers.legacy` is not supported in Keras 3.")
        assert needs_legacy_keras(error)
        monkeypatch.setattr(tf.keras, "__version__", "2.21.0")
        assert not needs_legacy_keras(error)


@pytest.mark.tf
class TestGraphMode:
    def test_what_says_that_eager_execution_must_be_off(self, tf):
        wrong = [
            lambda: tf.compat.v1.placeholder(tf.float32, [2]),
            lambda: tf.gradients(tf.constant(1.0), tf.constant(1.0)),
            lambda: tf.compat.v1.train.GradientDescentOptimizer(0.1).minimize(tf.constant(1.0)),
            lambda: tf.compat.v1.train.string_input_producer(["a"]),
            lambda: tf.constant(1.0).name,
            lambda: tf.compat.v1.Session().run([]),
        ]
        for call in wrong:
            with pytest.raises((RuntimeError, AttributeError)) as caught:
                call()
            assert needs_graph_mode(caught.value), caught.value

    def test_what_needs_eager_execution_says_something_else(self, tf):
        with tf.Graph().as_default(), pytest.raises(TypeError) as caught:
            len(tf.data.Dataset.range(3))
        assert not needs_graph_mode(caught.value)
        assert "needs eager execution" in explain(caught.value, None, "build the model").message


class TestMessages:
    def test_errors_of_the_house_stay_and_get_their_path(self):
        error = UsageError("wrong", path=None)
        assert explain(error, "train.py:build", "import") is error
        assert error.path == "train.py:build"

    def test_errors_of_the_house_name_the_path_once(self):
        assert str(explain(UsageError("t.py:b: wrong"), "t.py:b", "import")) == "t.py:b: wrong"
        assert str(explain(UsageError("t.py:b gives nothing"), "t.py:b", "import")) == "t.py:b: the code gives nothing"

    def test_who_interrupts_is_obeyed(self):
        with pytest.raises(KeyboardInterrupt):
            explain(KeyboardInterrupt(), "train.py", "import the module")

    def test_what_keras_puts_around_a_message_is_taken_off(self):
        text = ("Exception encountered when calling Net.call().\n\n\x1b[1mInput 0 is wrong.\x1b[0m\n\n"
                "Arguments received by Net.call():\n  • x=1")  # fmt: skip
        assert message_of(ValueError(text)) == "Input 0 is wrong."
        text = ('Exception encountered when calling layer "dense" (type Dense).\n\nBad.\n\nCall arguments received by '
                'layer "dense" (type Dense):\n  • x=1')  # fmt: skip
        assert message_of(ValueError(text)) == "Bad."

    def test_functions_in_functions(self):
        text = ('in user code:\n\n    File "a.py", line 3, in f  *\n        g(x)\n    File "a.py", line 1, in g  *\n'
                "        1 / 0\n\n    ZeroDivisionError: division by zero\n")  # fmt: skip
        assert message_of(ZeroDivisionError(text)) == "division by zero"

    def test_errors_that_keras_and_autograph_wrap_keep_their_type(self, tf):
        @tf.function
        def opens():
            with open("nowhere.txt") as file:
                return file.read()

        class Looks(tf.keras.Model):
            def call(self, x):
                return {}["a key"] + x

        with pytest.raises(Exception, match="nowhere") as caught:
            opens()
        assert "FileNotFoundError: [Errno 2]" in explain(caught.value, None, "trace it").message
        with pytest.raises(KeyError) as caught:
            tf.function(Looks())(tf.zeros([1, 2]))
        assert explain(caught.value, None, "trace it").message == "cannot trace it: KeyError: a key"

    def test_exceptions_whose_words_raise(self):
        class Ends(BaseException):
            pass

        class Broken(Exception):
            message = property(lambda self: {}["message"])

            def __str__(self):
                raise Ends

        assert explain(Broken(), None, "build it").message == "cannot build it: Broken"

    def test_code_that_goes_to_the_root(self, tmp_path, monkeypatch):
        (tmp_path / "goes.py").write_text("import os\n\ndef fails():\n    os.chdir('/')\n    1 / 0\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        import goes

        with pytest.raises(ZeroDivisionError) as caught:
            goes.fails()
        assert explain(caught.value, None, "build it").where.startswith(f"{tmp_path}/goes.py:5 in fails")

    def test_causes_that_go_in_circles(self):
        one, other = ValueError("one"), ValueError("other")
        one.__cause__, other.__cause__ = other, one
        assert explain(one, None, "build it").message == "cannot build it: ValueError: one"

    @pytest.mark.parametrize("text", ["x" * 3_000_000, "layer" * 200_000, "Shape " * 200_000, "is not " * 200_000])
    def test_huge_messages_are_looked_at_in_parts(self, text):
        """Patterns that are tried at every letter of all of it would take hours."""
        assert len(explain(RuntimeError(text), None, "build it").message) < 600

    def test_a_name_of_tensorflow_1_is_no_slip_of_the_finger(self, tf):
        with pytest.raises(AttributeError) as caught:
            tf.assign  # noqa: B018
        assert "is for TensorFlow 1: tf.assign" in explain(caught.value, None, "build it").message
        with pytest.raises(AttributeError) as caught:
            tf.keras.layers.Dence  # noqa: B018
        assert explain(caught.value, None, "build it").hint == "near names: Dense"

    def test_long_messages_are_cut(self):
        assert len(str(explain(ValueError("a b " * 10000), None, "build the model"))) < 600

    def test_the_message_may_be_empty(self):
        assert explain(AssertionError(), None, "build the model").message == "cannot build the model: AssertionError"

    def test_memory(self):
        said = explain(RuntimeError("OOM when allocating tensor with shape[9,9] and type float"), None, "build it")
        assert isinstance(said, RuntimeFailure)
        assert "no memory for it: OOM when allocating tensor with shape[9,9]" in said.message
        error = explain(MemoryError(), None, "build the model")
        assert isinstance(error, RuntimeFailure)
        assert error.message == "no memory was left to build the model"

    def test_a_module_that_the_package_lost(self):
        with pytest.raises(ModuleNotFoundError) as caught:
            import json.no_such_part  # noqa: F401
        error = explain(caught.value, None, "import the module")
        assert isinstance(error, UsageError)
        assert "which the json that is installed does not have" in error.message

    def test_a_missing_package(self):
        error = explain(ModuleNotFoundError("No module named 'tf_slim'", name="tf_slim"), None, "import the module")
        assert isinstance(error, MissingDependencyError)
        assert "pip install tf_slim" in error.hint

    @pytest.mark.parametrize(
        ("message", "said"),
        [
            ("No module named 'tensorflow.contrib'", "tf.contrib"),
            ("No module named 'tensorflow.examples'", "does not bring tensorflow.examples along"),
            ("module 'tensorflow' has no attribute 'estimator'", "taken out of TensorFlow 2.16"),
            ("Trying to access flag --units before flags were parsed.", "the flag --units"),
            ("int() argument must be a string, not 'SymbolicTensor'", "asks for the value of a tensor"),
            ("must be real number, not SymbolicTensor", "asks for the value of a tensor"),
            ("'SymbolicTensor' object has no attribute 'item'", "into a numpy array"),
            ("'SymbolicTensor' object does not support item assignment", "cannot be written into"),
            ("'SymbolicTensor' object cannot be interpreted as an integer", "asks for the value of a tensor"),
            ("list indices must be integers or slices, not SymbolicTensor", "asks for the value of a tensor"),
            ("Failed to convert elements of (None, 4) to Tensor.", "is None here: (None, 4)"),
            ("You forgot to call `super().__init__()` in the `__init__()` of", "super().__init__()"),
            ("tf.enable_eager_execution must be called at program startup.", "after TensorFlow has started"),
        ],
    )
    def test_messages_that_are_known(self, message, said):
        error = explain(RuntimeError(message), None, "build the model")
        assert isinstance(error, UsageError)
        assert said in error.message
        assert error.hint


    @pytest.mark.parametrize(
        ("error", "hint"),
        [
            (TypeError("missing a required argument: 'mask'"), "--input 'mask:float32[?,784]'"),
            (TypeError("call() missing 1 required positional argument: 'mask'"), "--input 'mask:float32[?,784]'"),
            (FileNotFoundError(2, "No such file or directory", "train.csv"), "paths are seen from the current"),
        ],
    )
    def test_words_that_need_only_a_cure_stay(self, error, hint):
        said = explain(error, None, "build the model")
        assert isinstance(said, RuntimeFailure)
        assert said.message == f"cannot build the model: {type(error).__name__}: {error}"
        assert hint in said.hint


class TestResults:
    @pytest.mark.parametrize("result", [3, 2.5, "model", b"", None, [], (1, 2), {1}, sys, dict, (x for x in ())])
    def test_what_can_never_be_exported(self, result):
        with pytest.raises(UsageError, match="cannot be exported; ") as caught:
            checked_result(result, "train.py:build")
        assert caught.value.path == "train.py:build"

    def test_what_may_be_is_given_back(self):
        for result in ({"f": print}, print, object()):
            assert checked_result(result, None) is result
