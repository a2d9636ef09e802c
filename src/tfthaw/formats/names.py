"""The names of the formats: what is said in JSON, after `--to`, in errors, and in the README's table.

Nothing here reads or writes; `tfthaw.formats.detect` tells which one a path is.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """A format that tfthaw knows.

    Attributes:
        name: Its name.
        holds: `graph`, `weights` (named tensors alone), or `keras` (weights, and the layers' configuration).
        is_written: Whether it is written, or only read.
        what: What it is, for people.
    """

    name: str
    holds: str
    is_written: bool
    what: str


FORMATS = (
    Format("frozen-graph", "graph", True, "`.pb` and `.pbtxt` with no variables left: values are constants"),
    Format("graph-def", "graph", True, "`.pb` and `.pbtxt` with variables, and no values"),
    Format("meta-graph", "graph", True, "`.meta`, with its checkpoint beside it"),
    Format("saved-model", "graph", True, "signatures, functions, object graph, variables and assets in a directory; "
                                         "`--style v1` writes the graph alone, as TensorFlow 1 did"),
    Format("checkpoint", "weights", True, "tensor bundle (V2): name-based or object-based, sharded, partitioned, "
                                          "every element type"),
    Format("checkpoint-v1", "weights", False, "the single-file checkpoints of TensorFlow 0.x and 1.x"),
    Format("safetensors", "weights", True, "`.safetensors`"),
    Format("npz", "weights", True, "`.npz` of numpy"),
    Format("keras-h5", "keras", True, "`.h5` of a whole model, of Keras 2 and 3"),
    Format("keras-weights", "keras", True, "`.weights.h5`, and the `.h5` of `save_weights`"),
    Format("keras-zip", "keras", True, "`.keras`"),
)  # fmt: skip

GRAPH_FORMATS = tuple(item.name for item in FORMATS if item.holds == "graph")
CHECKPOINT_FORMATS = ("checkpoint", "checkpoint-v1")
WEIGHT_FORMATS = tuple(item.name for item in FORMATS if item.holds == "weights" and item.is_written)
KERAS_FORMATS = tuple(item.name for item in FORMATS if item.holds == "keras" and item.is_written)
WRITABLE_FORMATS = (*GRAPH_FORMATS, *WEIGHT_FORMATS, *KERAS_FORMATS)


def format_table() -> str:
    """Return the formats as the table of the README, in Markdown."""
    rows = [
        f"| `{item.name}` | yes | {'yes' if item.is_written else ''} | {_HOLDS[item.holds]} | {item.what} |"
        for item in FORMATS
    ]
    return "\n".join(["| format | read | write | holds | what |", "| --- | --- | --- | --- | --- |", *rows])


_HOLDS = {"graph": "a graph", "weights": "weights", "keras": "weights and layers"}
