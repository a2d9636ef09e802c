"""Signatures: named inputs and outputs of a graph.

Source: SignatureDef and TensorInfo of meta_graph.proto of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape

PREDICT_METHOD = "tensorflow/serving/predict"
DEFAULT_SIGNATURE = "serving_default"
INIT_OP_SIGNATURE = "__saved_model_init_op"
TRAIN_OP_SIGNATURE = "__saved_model_train_op"


@dataclass(slots=True)
class SignatureTensor:
    """One input or output of a signature.

    Attributes:
        tensor: The tensor's name in the graph (`x:0`); empty where it is made of several (sparse, composite).
        dtype: Its element type.
        shape: Its shape as the signature states it, or None where it does not.
        opaque: Everything else (the parts of a sparse or composite tensor, unknown fields), as bytes.
        components: Of a sparse or composite tensor: what it is made of, by the name of the part.
        whole: Of a component that stands for itself: the argument that it is a part of, with its name.
    """

    tensor: str
    dtype: DType
    shape: Shape | None = None
    opaque: bytes = b""
    components: Mapping[str, SignatureTensor] = field(default_factory=dict)
    whole: tuple[str, SignatureTensor] | None = None


@dataclass(slots=True)
class Signature:
    """A signature.

    Attributes:
        inputs: argument name -> tensor.
        outputs: result name -> tensor.
        method: What kind of call it is, such as `tensorflow/serving/predict`.
        opaque: Everything else (default values, unknown fields), as bytes.
    """

    inputs: dict[str, SignatureTensor] = field(default_factory=dict)
    outputs: dict[str, SignatureTensor] = field(default_factory=dict)
    method: str = PREDICT_METHOD
    opaque: bytes = b""
