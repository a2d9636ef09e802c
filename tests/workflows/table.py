"""The seven workflows that export, and the kinds of checkpoints that each may start from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KERAS = ("keras3", "tf_keras")
OF_KERAS_MODELS = ("model", "root", "optimizer", "fitted", "weights", "names", "other", "other-fitted")


@dataclass(frozen=True)
class Workflow:
    """What somebody has, and what they want.

    Attributes:
        example: The script in `examples/` that holds the code.
        code: What `--code` names in it.
        to: The format that is wanted.
        shape: The shape of the input; the batch is 5.
        kinds: The kinds of checkpoints that there are of it.
        unclear: Those of Keras 3 that cannot be exported: they do not say which value is whose.
        options: Further options of the conversion.
        trained: What in the script is trained: a builder of a Keras model or module, or of a graph.
        output: The output's name in the signature, where the code gives it one.
    """

    example: str
    code: str
    to: str
    shape: tuple[int, ...]
    kinds: tuple[str, ...] = OF_KERAS_MODELS
    unclear: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    trained: str = "build_model"
    output: str = ""

    def kinds_under(self, keras):
        """Return the kinds that can be exported under a Keras."""
        return [kind for kind in self.kinds if keras != "keras3" or kind not in self.unclear]

    @property
    def spec(self):
        """The text for `--code`."""
        return f"{EXAMPLES / self.example}.py:{self.code}"

    @property
    def is_graph(self):
        """Whether what is trained is a graph of TensorFlow 1."""
        return self.trained == "build_graph"

    def destination(self, folder):
        """Return where to write, in a directory."""
        return str(folder / {"saved-model": "served", "frozen-graph": "frozen.pb", "meta-graph": "model.meta"}[self.to])


WORKFLOWS = (
    Workflow("checkpoint_to_saved_model", "build_model", "saved-model", (5, 4)),
    Workflow("graph_mode_to_saved_model", "build_serving_graph", "saved-model", (5, 4), options={"style": "v1"},
             output="value"),
    Workflow("inference_graph_to_saved_model", "build_inference_graph", "saved-model", (5, 8, 8, 3), output="scores"),
    Workflow("module_to_frozen_graph", "Linear", "frozen-graph", (5, 2), ("model", "root", "optimizer", "names"),
             trained="Linear"),
    Workflow("sequential_to_meta_graph", "build_model", "meta-graph", (5, 16)),
    Workflow("subclassed_to_meta_graph", "Classifier", "meta-graph", (5, 4), unclear=("names",),
             options={"input": ["x:float32[?,4]"]}, trained="Classifier"),
    Workflow("placeholders_to_meta_graph", "build_graph", "meta-graph", (5, 16), ("names", "slots", "version1"),
             trained="build_graph", output="probabilities"),
)  # fmt: skip


def folder_of(lab, keras, workflow, kind):
    """Return the directory of one checkpoint; kinds `other...` are what the other Keras wrote."""
    if kind.startswith("other"):
        keras = KERAS[1 - KERAS.index(keras)]
        kind = {"other": "model", "other-fitted": "fitted"}[kind]
    return Path(lab) / keras / workflow.example / kind


def prefix_of(folder):
    """Return the checkpoint in a directory, as a user would name it."""
    weights = folder / "ckpt.weights.h5"
    return str(weights if weights.exists() else folder / "ckpt")
