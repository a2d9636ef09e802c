"""What a user may ask of a conversion."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfthaw._files import Progress
from tfthaw.errors import UsageError
from tfthaw.formats.names import GRAPH_FORMATS, KERAS_FORMATS, WEIGHT_FORMATS, WRITABLE_FORMATS
from tfthaw.ir.op_history import minor_of, versions
from tfthaw.ir.readability import OLDEST

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
        checkpoint_root: Which object of an object-based checkpoint is the model, where several could be (`--code`).
        code: The model's Python, `MODULE:CALLABLE` or `FILE.py:CALLABLE`.
        input: What the code takes where it does not say so: `NAME:DTYPE[DIMS]` each, or name -> `DTYPE[DIMS]`.
        tags: The tag set of the MetaGraph to take from a SavedModel.
        signature: The signature to take, or several: each a key, or `NEW=OLD` for one that gets a new key.
        inputs: Tensors to feed, where no signature says.
        outputs: Tensors to compute, where no signature says.
        map: checkpoint key -> variable.
        ema: What to do with moving averages: `keep`, `use` or `drop`.
        optimizer: `drop` or `keep` slot variables; None takes the format's default.
        allow_missing: Patterns of variables that may stay without value.
        allow_unused: Patterns of checkpoint keys that may stay unused where a map is given, or a model that code gives.
        set: placeholder -> the value that it shall have.
        dtype: Cast floating weights to this type (weights formats).
        verify: `weights` alone, or `outputs` too; None does what can be done.
        style: How a SavedModel is written: `v2` with functions and an object graph, or `v1` as a graph alone.
        unfreeze: Whether large floating constants of a graph become variables (saved-model).
        batch_norm: `keep` batch normalisation as it is, or make what is left in training mode use its moving averages.
        keys: Of a checkpoint: the `names` that the source has, or paths of `objects`, as `tf.train.Checkpoint` of the
            Keras model has them; None takes those of the source.
        strip_attrs: Whether attrs that are at their default are dropped.
        for_tf: The TensorFlow that shall be able to read the graph, such as `1.15` or `2.4.1`.
        targets: Nodes of the graph to keep for themselves, with all that they need, such as ops that give no tensor
            (frozen-graph).
        keep_variables: Variables that stay variables, by their nodes, without value (frozen-graph).
        clear_devices: Whether nodes no longer ask for the machine that they ran on.
        overwrite: Whether what is at the destination may be replaced.
        progress: Called with the number of bytes just done.
    """

    to: str
    checkpoint: str | None = None
    checkpoint_root: str | None = None
    code: str | None = None
    input: str | Sequence[str] | Mapping[str, str] = ()
    tags: Sequence[str] | None = None
    signature: str | Sequence[str] | None = None
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
    unfreeze: bool = False
    batch_norm: str = "keep"
    keys: str | None = None
    strip_attrs: bool = False
    for_tf: str | None = None
    targets: Sequence[str] = ()
    keep_variables: Collection[str] = ()
    clear_devices: bool = True
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
        given += [name for name in ("strip_attrs", "for_tf") if getattr(self, name)]
        if (self.targets or self.keep_variables) and self.to != "frozen-graph":
            raise UsageError(f"targets and keep_variables are for a frozen-graph, not a {self.to}")
        if self.keys and self.to != "checkpoint":
            raise UsageError(f"--keys says how a checkpoint names its values, not a {self.to}")
        if given and self.to in (*WEIGHT_FORMATS, *KERAS_FORMATS):
            raise UsageError(
                f"{', '.join(given)} choose or change a part of a graph, and {self.to} holds weights alone"
            )
        if self.unfreeze and (self.to != "saved-model" or self.style != "v2"):
            raise UsageError("--unfreeze makes variables of constants, in a saved-model of TensorFlow 2 (--style v2)")
        if self.optimizer == "keep" and self.to in GRAPH_FORMATS and self.to != "meta-graph":
            raise UsageError(f"a {self.to} is pruned to its outputs, which need nothing of an optimizer")
        if self.dtype and self.to not in ("safetensors", "npz", "checkpoint"):
            raise UsageError(f"--dtype casts weights formats (safetensors, npz, checkpoint), not {self.to}")
        if self.for_tf is not None:
            self._check_version(self.for_tf)

    @property
    def signatures(self) -> tuple[str, ...]:
        """The signatures to take, as given."""
        if self.signature is None:
            return ()
        return (self.signature,) if isinstance(self.signature, str) else tuple(self.signature)

    def _check_version(self, version: str) -> None:
        """Refuse a version of TensorFlow that graphs cannot be made for."""
        known = versions()[versions().index(OLDEST) :]
        if not re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}(\.[\w.\-]*)?", version) or minor_of(version) not in known:
            raise UsageError(
                f"for_tf is {version!r}; expected major.minor of a TensorFlow from {known[0]} to {known[-1]}",
                hint=f"known are {', '.join(known)}",
            )
        if version.startswith("1.") and self.to == "saved-model" and self.style == "v2":
            raise UsageError(
                f"TensorFlow {version} loads no SavedModel of functions and objects", hint="give --style v1 as well"
            )
