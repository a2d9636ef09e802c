"""What TensorFlow, Keras and Python say when the user's code cannot be traced, and what it means.

A table: the words that each says, what they mean in one sentence, the cure. It is used by `tfthaw.runtime.explain`,
which finds the user's line and makes the error; nothing is decided here.

Source: the messages themselves, collected by running wrong code under TensorFlow 2.12, 2.15 and 2.21, with Keras 2,
`tf_keras` and Keras 3. Their wording changes between versions, so patterns name only what stayed.
"""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass


class Cure(enum.Enum):
    """What can be done without the user."""

    NOTHING = enum.auto()
    LEGACY_KERAS = enum.auto()  # run the code under Keras 2
    GRAPH_MODE = enum.auto()  # run the code without eager execution


@dataclass(frozen=True)
class KnownFailure:
    """A message, and what it means.

    Attributes:
        pattern: What the message contains; groups may be named in the texts.
        meaning: One sentence; `{0}` is the text that the pattern found, `{1}` its first group; empty to keep the
            message as it is.
        hint: What the user can do.
        cure: What can be done without the user.
        is_of_the_code: Whether it is the code that must change, or the options.
        only_if: What must be true besides.
        cites: Whether the message's own first sentence is told as well.
    """

    pattern: str
    meaning: str
    hint: str = ""
    cure: Cure = Cure.NOTHING
    is_of_the_code: bool = True
    only_if: Callable[[re.Match[str]], bool] = bool
    cites: bool = True

    def found_in(self, message: str) -> re.Match[str] | None:
        """Return where the pattern is found in a message."""
        found = re.search(self.pattern, message, re.DOTALL)
        return found if found and self.only_if(found) else None


def _is_in_version_1(name: str) -> bool:
    """Whether TensorFlow 1 has a name, which only an imported TensorFlow can tell."""
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and hasattr(tensorflow.compat.v1, name)


_WHERE_IS_MEANT = (
    "choose by element with tf.where(condition, a, b); where one choice for the whole tensor is meant, reduce it "
    "first: tf.reduce_all(...) or tf.reduce_any(...)"
)
_V1_IMPORT = "import TensorFlow as `import tensorflow.compat.v1 as tf`"
_CONTRIB = (
    "tf.contrib was taken out of TensorFlow 2: tf.contrib.slim is `pip install tf_slim` (`import tf_slim as slim`), "
    "tf.contrib.layers is there as tf_slim.layers, the rest must be replaced"
)
_SHAPE = "give the shape that the model was trained with: --input 'NAME:DTYPE[DIMS]'"
_BUILD_VARIABLES = "make variables once: in __init__, or in build() of a Keras layer, and use them in the function"

FAILURES = (
    # Python and tensors
    KnownFailure(
        r"condition of (if|while|for|assert)\w* ?\w* ?expected to be `?tf\.bool`? scalar, got .*?shape=(\([^)]*\))",
        "the condition of this `{1}` is a tensor of the shape {2}, and must be one true or false", _WHERE_IS_MEANT,
    ),
    KnownFailure(
        r"condition of cond expected to be `tf\.bool` scalar, got .*?shape=(\([^)]*\))",
        "a tensor of the shape {1} decides an `if`, an `and` or `or`, a chained comparison or a tf.cond, and only one "
        "true or false can",
        f"{_WHERE_IS_MEANT}; combine conditions with tf.logical_and and tf.logical_or",
    ),
    KnownFailure(
        r"Using a symbolic `?tf\.Tensor`? as a Python `?bool`?",
        "a Python `if`, `while`, `and`, `or`, `not` or `assert` asks for the value of a tensor, which a graph has not",
        "use tf.where(condition, a, b) or tf.cond(condition, lambda: a, lambda: b), and tf.logical_and/or/not; or "
        "decorate the function with @tf.function, which turns `if` on one true or false into tf.cond",
    ),
    KnownFailure(
        r"Iterating over a symbolic `?tf\.Tensor`?",
        "Python iterates over a tensor, whose length a graph does not know",
        "use tf.unstack(x) where the length is known, tf.map_fn or tf.while_loop else; or decorate the function with "
        "@tf.function",
    ),
    KnownFailure(
        r"Tensor'? object has no attribute '(numpy|item|tolist|astype|view)'|NumPy call, which is not supported|"
        r"Cannot convert a symbolic (tf\.|Keras )?(Tensor|tensor|input/output)|numpy\(\) is only (available|supported)",
        "the code turns a tensor into a numpy array, and while it is traced a tensor has no values yet",
        "compute with TensorFlow's own functions, or keep what numpy computes out of the exported function",
    ),
    KnownFailure(
        r"(?:int|float|complex)\(\) argument must be .*?Tensor'|Tensor' object cannot be interpreted as an integer|"
        r"indices must be integers or slices, not \w*Tensor|argument of type '\w*Tensor' is not iterable|"
        r"Tensor is unhashable|real number(?: is required)?, not \w*Tensor|format string passed to \w*Tensor",
        "Python asks for the value of a tensor, and while it is traced a tensor has no values yet",
        "compute with TensorFlow's own functions: tf.cast for int() and float(), tf.range, tf.gather for an index, "
        "tf.reduce_any(tf.equal(...)) for `in`",
    ),
    KnownFailure(
        r"'\w*Tensor' object does not support item assignment", "a tensor cannot be written into",
        "make a new one: tf.where, tf.concat or tf.tensor_scatter_nd_update",
    ),
    KnownFailure(
        r"Failed to convert elements of ([\[(][^\])]*None[^\])]*[\])]) to Tensor",
        "a size of a shape is known only when the model runs, and is None here: {1}",
        "take it from the tensor: tf.shape(x)[0]; or let tf.reshape find it: -1",
    ),
    KnownFailure(
        r"'(\w+)' must also be initialized in the (\w+) branch",
        "`{1}` is given a value in one branch of an `if` on a tensor, and not in the {2} branch",
        "give `{1}` a value of the same dtype before the `if`, or in both branches",
    ),
    KnownFailure(
        r"is out of scope and cannot be used here",
        "a tensor of one traced function is used outside of it",
        "return it from the function instead of keeping it in a list or an attribute",
    ),
    # Variables
    KnownFailure(
        r"tf\.function only supports singleton tf\.Variables|"
        r"tf\.function-decorated function tried to create variables on non-first call",
        "the code makes new variables each time it is called, so no checkpoint can hold their values", _BUILD_VARIABLES,
    ),
    KnownFailure(
        r"`?tf\.Variable`? should not be created (inside|on)|Creating variables on a non-first call",
        "the code makes new variables each time it is called, so no checkpoint can hold their values", _BUILD_VARIABLES,
    ),
    # Arguments and shapes
    KnownFailure(
        r"Binding inputs to tf\.function .*?failed due to `missing a required argument: '(\w+)'",
        "the function needs a value for `{1}`, and nothing says what it is",
        "say its dtype and shape: --input '{1}:float32[?,784]', or @tf.function(input_signature=[tf.TensorSpec(...)])",
    ),
    KnownFailure(
        r"Can not cast (TensorSpec\(.*?\)) to (TensorSpec\(.*?\))[`.]|Python inputs incompatible with input_signature",
        "the inputs do not fit the function's own input_signature",
        "leave --input out, or give what the signature says",
    ),
    KnownFailure(
        r"(Input \d+ (?:with name '\w+' )?of layer .*? is incompatible with the layer: .*)",
        "the shapes do not fit: {1}", _SHAPE,
    ),
    KnownFailure(
        r"Expected shape (\([^)]*\)), but input has incompatible shape (\([^)]*\))",
        "the shapes do not fit: the model takes {1}, what is declared is {2}", _SHAPE,
    ),
    KnownFailure(
        r"dtype='?(\w+)'? is not a valid dtype", "the model computes nothing with the dtype {1}",
        "say with --input the dtype that it was trained with, such as float32",
    ),
    KnownFailure(
        r"(Dimensions must be equal, but are (\S+) and (\S+)).*?with input shapes: ([^;\n]*?)\.?\s*$",
        "the shapes do not fit: {2} and {3} must be equal (shapes {4})",
        _SHAPE,
    ),
    KnownFailure(
        r"Shapes? (\S.*?) and (\S.*?) (are|must be) (incompatible|compatible|equal)",
        "the shapes do not fit: {1} and {2}", _SHAPE,
    ),
    KnownFailure(
        r"(Shape must be (?:at least )?rank \d+ but is rank \d+|Incompatible shapes: .*|"
        r"Negative dimension size caused by .*?)(?: for '\{\{|\n|$)",
        "the shapes do not fit: {1}", _SHAPE,
    ),
    KnownFailure(
        r"Shapes used to initialize variables must be fully-defined|as_list\(\) is not defined on an unknown|"
        r"[Tt]he last dimension of the inputs to [^.]{1,80} should be defined|"
        r"channel dimension of the inputs should be defined",
        "the shape of an input leaves open what the model must know to be built",
        "give its sizes: --input 'NAME:DTYPE[?,784]'; the batch may stay `?`",
    ),
    # Keras
    KnownFailure(
        r"Keras cannot be imported\. Check that it is installed", "Keras is not installed",
        "install it with: pip install keras; or, where TF_USE_LEGACY_KERAS=1 chooses Keras 2: pip install tf_keras",
    ),
    KnownFailure(
        r"module '\S*keras\S*' has no attribute '((?:set|get|clear)_session)'",
        "{1} is of TensorFlow 1, and this Keras has it no more",
        "take it out: a model is built without a session; or call tf.compat.v1.keras.backend.{1} with Keras 2",
    ),
    KnownFailure(
        r"forgot to call `super\(\)\.__init__\(\)`|forgot to call super\(\)\.__init__",
        "the model's __init__ does not call super().__init__()", "make it the first line of __init__",
    ),
    KnownFailure(
        r"(model|layer)\S* (has|provided has) not yet been built|has never been called|"
        r"weights? .*has not (yet )?been built|"
        r"'(?:Sequential|Functional|\w*Model)' object has no attribute 'inputs'",
        "the model has no variables before its first call, and nothing says what its inputs are",
        "add a tf.keras.Input(shape) or call it once in the code: model(tf.zeros([1, ...])); or say "
        "--input 'x:float32[?,784]'",
    ),
    KnownFailure(
        r"'([^']*)' is not a valid (?:root )?scope name", "the name {1!r} has characters that no graph takes",
        "call layers and models with letters, digits, `_`, `.` and `-` alone; in a checkpoint of objects names do not "
        "matter",
    ),
    KnownFailure(
        r"`?keras\.optimizers\.legacy`? is not supported in Keras 3", "the code uses an optimizer of Keras 2",
        cure=Cure.LEGACY_KERAS,
    ),
    KnownFailure(
        r"`?(\w+)`? is not available with Keras 3", "tf.compat.v1.layers.{1} needs Keras 2", cure=Cure.LEGACY_KERAS,
    ),
    KnownFailure(
        r"`name` must be passed as a keyword argument\. Received: add_weight|"
        r"add_weight\(\) got multiple values for argument|Only input tensors may be passed as positional arguments",
        "the code gives arguments by position, as Keras 2 takes them", cure=Cure.LEGACY_KERAS,
    ),
    KnownFailure(
        r"A KerasTensor cannot be used as input to a TensorFlow function",
        "the code gives a Keras input to a TensorFlow function, which Keras 2 allows and Keras 3 does not",
        cure=Cure.LEGACY_KERAS,
    ),
    KnownFailure(
        r"(?:Unrecognized keyword argument|[Aa]rgument(?:\(s\)|s)? not recognized).*?(\{.*?\})",
        "this Keras does not take the arguments {1}", cure=Cure.LEGACY_KERAS,
    ),
    KnownFailure(
        r"module '(?:tf_)?(?:keras\.(?:_tf_keras|src)\S*|keras\.\w+(?:\.\w+)*)' has no attribute '(\w+)'",
        "this Keras has no `{1}` here", cure=Cure.LEGACY_KERAS,
    ),
    KnownFailure(
        r"No module named '((?:tensorflow\.)?keras\.[\w.]+)'|"
        r"cannot import name '(\w+)' from '(?:tensorflow\.)?(?:keras|tf_keras)\b",
        "this Keras has no such module or name",
        "import what it has: `from tensorflow.keras import layers, models`", cure=Cure.LEGACY_KERAS,
    ),
    KnownFailure(
        r"Keras 3 only supports V3 `?\.keras`? files|not supported by `?load_model\(\)`? in Keras 3",
        "Keras 3 does not load SavedModels", cure=Cure.LEGACY_KERAS,
    ),
    # TensorFlow 1
    KnownFailure(
        r"module 'tensorflow\S*' has no attribute 'contrib'|No module named '\S*tensorflow\.contrib\S*",
        "the code uses tf.contrib, which TensorFlow 2 has not", _CONTRIB,
    ),
    KnownFailure(
        r"module 'tensorflow' has no attribute 'estimator'|No module named 'tensorflow_estimator",
        "tf.estimator was taken out of TensorFlow 2.16",
        "point --code at the model function's network itself, or use the run's .meta in place of the code; TensorFlow "
        "2.15 still has it: pip install 'tensorflow==2.15.*'",
    ),
    KnownFailure(
        r"No module named 'tensorflow\.(examples|models)", "TensorFlow 2 does not bring tensorflow.{1} along",
        "import data where the code trains, under `if __name__ == \"__main__\":`, not where it builds the model",
    ),
    KnownFailure(
        r"module 'tensorflow' has no attribute '(\w+)'",
        "the code is for TensorFlow 1: tf.{1} is not in TensorFlow 2", _V1_IMPORT,
        only_if=lambda found: _is_in_version_1(found[1]),
    ),
    # Eager and graph
    KnownFailure(
        r"(enable_eager_execution|disable_eager_execution) must be called at program startup",
        "the code switches between eager and graph mode after TensorFlow has started",
        "take the call out: the code is run in the mode that it needs, and what it builds is found out",
    ),
    KnownFailure(
        r"Do not use tf\.reset_default_graph\(\) to clear nested graphs",
        "the code clears the graph that it is building", "take tf.reset_default_graph() out: the graph is a new one",
        cure=Cure.GRAPH_MODE, cites=False,
    ),
    KnownFailure(
        r"(is|are) (not (supported|compatible|allowed|available|valid)|incompatible|undefined|meaningless)[^.]{0,40}"
        r"(eager|executing eagerly)|does not support eager execution|not compatible with eager|"
        r"should be a function when eager|only supported in graph mode|Eager mode\. Use|in eager mode is not|"
        r"The Session graph is empty|requires? graph mode",
        "the code builds a graph of TensorFlow 1, for which eager execution must be off", cure=Cure.GRAPH_MODE,
    ),
    KnownFailure(
        r"only (supported|available|compatible) (in|with|when)[^.]{0,20}eager|You must enable eager execution|"
        r"only supports `?\w+`? in eager|is not supported in graph mode",
        "the code needs eager execution, and something in it has switched that off",
        "take disable_eager_execution() and disable_v2_behavior() out",
    ),
    # The rest
    KnownFailure(
        r"missing a required argument: '(\w+)'|missing \d+ required positional arguments?: '(\w+)'",
        "", "where `{1}{2}` is an input of the model, declare it: --input '{1}{2}:float32[?,784]'",
        is_of_the_code=False,
    ),
    KnownFailure(
        r"attempted relative import (with no known parent package|beyond top-level package)",
        "the file belongs to a package, and is run without it",
        "name its module, from the folder that holds the package: --code package.module:NAME",
    ),
    KnownFailure(
        r"'dict' object has no attribute '(iteritems|itervalues|iterkeys|has_key)'|"
        r"name '(xrange|unicode|raw_input|basestring|reduce)' is not defined",
        "the code is for Python 2", "turn it into Python 3 first (2to3 does most of it)",
    ),
    KnownFailure(
        r"No such file or directory|No file or directory found", "",
        "paths are seen from the current directory; what builds a model need not load data or weights",
        is_of_the_code=False,
    ),
    KnownFailure(r"^EOF when reading a line$", "the code waits for somebody to type", "take input() out"),
    KnownFailure(
        r"Trying to access flag (--\w+) before flags were parsed",
        "the code reads the flag {1} before flags were parsed",
        "let the builder take plain arguments that have defaults",
    ),
    KnownFailure(
        r"Op type not registered '(\w+)'", "the op {1} is not known to this TensorFlow",
        "load its library in the code: tf.load_op_library(\"...so\")",
    ),
    KnownFailure(
        r"OOM when allocating tensor with shape(\[[^\]]*\])|[Oo]ut of memory|failed to allocate memory",
        "there is no memory for it: {0}", "a smaller --input is enough for tracing: leave the batch as `?`",
        is_of_the_code=False,
    ),
)  # fmt: skip
"""Known failures; the first whose pattern is found counts."""
