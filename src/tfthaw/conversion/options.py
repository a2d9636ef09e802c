"""What a user may ask of a conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfthaw._files import Progress
from tfthaw.errors import UsageError
from tfthaw.formats.names import GRAPH_FORMATS, KERAS_FORMATS, WEIGHT_FORMATS, WRITABLE_FORMATS

_CHOICES: dict[str, tuple[str, ...]] = {
    "to": WRITABLE_FORMATS,
    "ema": ("keep", "use", "drop"),
    "dtype": ("float16", "bfloat16"),
    "verify": ("weights", "outputs"),
    "optimizer": ("drop", "keep"),
    "style": ("v1", "v2"),
    "keys": ("names", "objects"),
    "batch_norm": ("keep", "inference"),
}


@dataclass(frozen=True)
class Options:
    """The options of one conversion; the fields are the options of `tfthaw convert`.

    Attributes:
        to: The format to write.
        checkpoint: Values from here instead of those that the source has.
        tags: The tag set of the MetaGraph to take from a SavedModel.
        signature: The signature to take.
        inputs: Tensors to feed, where no signature says.
        outputs: Tensors to compute, where no signature says.
        map: checkpoint key -> variable.
        ema: What to do with moving averages: `keep`, `use` or `drop`.
        optimizer: `drop` or `keep` slot variables; None takes the format's default.
        allow_missing: Patterns of variables that may stay without value.
        allow_unused: Patterns of checkpoint keys that may stay unused where a map is given.
        set: placeholder -> the value that it shall have.
        dtype: Cast floating weights to this type (weights formats).
        verify: `weights` alone, or `outputs` too; None does what can be done.
        style: How a SavedModel is written.
        batch_norm: `keep` batch normalisation as it is, or make what is left in training mode use its moving averages.
        keys: Of a checkpoint: the `names` that the source has, or paths of `objects`, as `tf.train.Checkpoint` of the
            Keras model has them; None takes those of the source.
        overwrite: Whether what is at the destination may be replaced.
        progress: Called with the number of bytes just done.
    """

    to: str
    checkpoint: str | None = None
    tags: Sequence[str] | None = None
    signature: str | None = None
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    map: Mapping[str, str] = field(default_factory=dict)
    ema: str = "keep"
    optimizer: str | None = None
    allow_missing: Sequence[str] = ()
    allow_unused: Sequence[str] = ()
    set: Mapping[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    verify: str | None = None
    style: str = "v2"
    batch_norm: str = "keep"
    keys: str | None = None
    overwrite: bool = False
    progress: Progress | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise UsageError(f"{name} is {value!r}; expected one of: {', '.join(choices)}")
        if self.signature and self.outputs:
            raise UsageError("a signature says what the outputs are; give --signature or --outputs, not both")
        if self.inputs and not self.outputs:
            raise UsageError("--inputs without --outputs: say which tensors to compute from them")
        given = [name for name in ("signature", "inputs", "outputs", "set") if getattr(self, name)]
        given += ["batch_norm"] if self.batch_norm != "keep" else []
        if self.keys and self.to != "checkpoint":
            raise UsageError(f"--keys says how a checkpoint names its values, not a {self.to}")
        if given and self.to in (*WEIGHT_FORMATS, *KERAS_FORMATS):
            raise UsageError(
                f"{', '.join(given)} choose or change a part of a graph, and {self.to} holds weights alone"
            )
        if self.optimizer == "keep" and self.to in GRAPH_FORMATS and self.to != "meta-graph":
            raise UsageError(f"a {self.to} is pruned to its outputs, which need nothing of an optimizer")
        if self.dtype and self.to not in ("safetensors", "npz", "checkpoint"):
            raise UsageError(f"--dtype casts weights formats (safetensors, npz, checkpoint), not {self.to}")
