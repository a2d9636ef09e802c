"""Where `freeze_graph` takes graph and values from, by the flags of TensorFlow's script.

    flags                                       graph                  values
    input_saved_model_dir, saved_model_tags     the MetaGraph there    the variables there
    input_meta_graph, input_checkpoint          the .meta              the checkpoint, by the .meta's own Saver
    input_graph, input_saver, input_checkpoint  the GraphDef           the checkpoint, by the Saver's restore op
    input_graph, input_checkpoint               the GraphDef           the checkpoint, by that Saver of the graph whose
                                                                       keys are the checkpoint's; else by the names of
                                                                       the variables

The rows are in the order in which they win. What a file is, text or binary, GraphDef or MetaGraphDef, its content says.
Checks come in the script's order and with its messages, which other scripts look for.

Source: the flags and messages of tensorflow/python/tools/freeze_graph.py of TensorFlow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from tfthaw import proto
from tfthaw._files import SourceFile
from tfthaw.conversion.destination import spare_sources
from tfthaw.errors import FormatError, NotFoundError, UnsupportedError, UsageError
from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.ir.model import Model
from tfthaw.ir.object_graph import TrackableObjectGraph
from tfthaw.ir.variables import VARIABLE_OPS, variable_name
from tfthaw.proto.text import first_field, parse_text
from tfthaw.serde.artifacts import Artifact, open_artifact
from tfthaw.serde.meta_graphs import saver_from_proto

_MAX_SAVER_BYTES = 1 << 20  # a SaverDef is three names and a few numbers
_YES = ("true", "t", "yes", "y", "1")
_NO = ("false", "f", "no", "n", "0", "")


@dataclass(frozen=True)
class FreezeFlags:
    """The flags of TensorFlow's `freeze_graph` that say something; the names are the script's.

    Attributes:
        output_graph: The file to write, always binary.
        output_node_names: Nodes to keep, with commas between; `node:0` is the node.
        input_graph: A GraphDef, text or binary.
        input_checkpoint: The checkpoint, in any spelling.
        input_meta_graph: A MetaGraphDef; or, as in the oldest script, whether `input_graph` is one.
        input_saver: A SaverDef, text or binary, whose restore op fills the variables of `input_graph`.
        input_saved_model_dir: A SavedModel.
        saved_model_tags: The tag set of its MetaGraph, with commas between.
        initializer_nodes: Nodes to run after restoring, with commas between.
        variable_names_whitelist: The variables that become constants; where it is empty, all.
        variable_names_denylist: Variables that stay variables.
        clear_devices: Whether nodes no longer ask for the machine that they ran on.
        checkpoint_version: 1 or 2; the checkpoint itself says which it is.
    """

    output_graph: str = ""
    output_node_names: str = ""
    input_graph: str = ""
    input_checkpoint: str = ""
    input_meta_graph: str | bool = ""
    input_saver: str = ""
    input_saved_model_dir: str = ""
    saved_model_tags: str = "serve"
    initializer_nodes: str = ""
    variable_names_whitelist: str = ""
    variable_names_denylist: str = ""
    clear_devices: bool = True
    checkpoint_version: int = 2

    @property
    def meta_graph(self) -> str:
        """The MetaGraphDef's path, or an empty text."""
        if isinstance(self.input_meta_graph, str) and self.input_meta_graph.lower() not in (*_YES, *_NO):
            return self.input_meta_graph
        return self.input_graph if read_flag(str(self.input_meta_graph)) else ""


@dataclass
class Sources:
    """Graph and values.

    Attributes:
        artifact: Where the graph is from.
        model: The graph with all around it, with the values that it shall have.
        values_path: Where the values are from, for errors.
        tags: The tag set of a SavedModel.
        is_saved_model: Whether graph and values are those of a SavedModel.
        stored: The object graph of an object-based checkpoint.
        notes: What was left out or defaulted.
    """

    artifact: Artifact
    model: Model
    values_path: str
    tags: Sequence[str] | None = None
    is_saved_model: bool = False
    stored: TrackableObjectGraph | None = None
    notes: list[str] = field(default_factory=list)

    def keys_by_node(self) -> dict[str, str]:
        """Return variable's node -> key, as an object-based checkpoint records the names that variables had.

        Names that several variables had say nothing.
        """
        if self.stored is None:
            return {}
        said = [
            (attribute.full_name, attribute.checkpoint_key)
            for item in self.stored.nodes
            for attribute in item.attributes
            if attribute.full_name
        ]
        counts = Counter(name for name, _ in said)
        keys = {name: key for name, key in said if counts[name] == 1}
        nodes = {node.name: variable_name(node) for node in self.model.graph.nodes if node.op in VARIABLE_OPS}
        shared = Counter(nodes.values())
        return {node: keys[name] for node, name in nodes.items() if name in keys and shared[name] == 1}


def read_flag(text: str) -> bool:
    """Read a flag that is true or false.

    Raises:
        UsageError: The text is neither.
    """
    if text.lower() not in (*_YES, *_NO):
        raise UsageError(f"expected true or false, found {text!r}")
    return text.lower() in _YES


def names_of(text: str) -> list[str]:
    """Return the names in a text with commas between; blanks go."""
    return [name for name in text.replace(" ", "").split(",") if name]


def open_sources(flags: FreezeFlags, opened: ExitStack) -> Sources:
    """Find and open graph and values.

    Args:
        flags: What was asked for.
        opened: Takes what is to be closed later.

    Raises:
        NotFoundError: A file is not there.
        UsageError: The flags name no graph.
        FormatError: A file is damaged.
        UnsupportedError: A file is of another kind.
    """
    if flags.checkpoint_version not in (1, 2):
        raise UsageError(f"Invalid checkpoint version (must be '1' or '2'): {flags.checkpoint_version}")
    if flags.input_saved_model_dir:
        return _from_saved_model(flags, opened)
    meta_graph = flags.meta_graph
    graph = meta_graph or flags.input_graph
    what = "Input meta graph" if meta_graph else "Input graph"
    artifact = _opened(graph, what, flags.output_graph, opened) if graph else None
    if flags.input_saver and not _exists(flags.input_saver):
        raise NotFoundError(f"Input saver file '{flags.input_saver}' does not exist!")
    values = _opened_checkpoint(flags.input_checkpoint, flags.output_graph, opened)
    if artifact is None:
        raise UsageError(
            "nothing says which graph to freeze",
            hint="give --input_graph or --input_meta_graph with --input_checkpoint, or --input_saved_model_dir",
        )
    notes = []
    if meta_graph and flags.input_graph not in ("", meta_graph):
        notes.append(f"the graph is that of --input_meta_graph; {flags.input_graph} was not read")
    tags = names_of(flags.saved_model_tags) if artifact.located.format == "saved-model" else None
    if not artifact.has_graph:
        raise UnsupportedError(f"{artifact.located.format} carries no graph", path=artifact.path,
                               hint="give the GraphDef or the .meta of the model")  # fmt: skip
    model = replace(artifact.model(tags), values=values.tensors)
    if flags.input_saver:
        model.saver = saver_from_proto(_read_saver(flags.input_saver))
        restore, nodes = TensorName.parse(model.saver.restore_op).node, GraphIndex(model.graph.nodes).nodes
        if restore not in nodes:
            raise NotFoundError.named("node", restore, nodes, path=artifact.path, where="restore op of --input_saver")
    sources = Sources(artifact, model, flags.input_checkpoint, tags, notes=notes)
    sources.stored = _stored(values)
    return sources


def _from_saved_model(flags: FreezeFlags, opened: ExitStack) -> Sources:
    tags = names_of(flags.saved_model_tags)
    artifact = _opened(flags.input_saved_model_dir, "Input SavedModel", flags.output_graph, opened)
    if artifact.located.format != "saved-model":
        raise UnsupportedError(f"it is a {artifact.format}, no SavedModel", path=flags.input_saved_model_dir,
                               hint="give a graph with --input_graph or --input_meta_graph")  # fmt: skip
    notes = [
        f"--{name} was not read: the SavedModel has graph and values"
        for name in ("input_graph", "input_meta_graph", "input_checkpoint", "input_saver")
        if getattr(flags, name)
    ]
    sources = Sources(artifact, artifact.model(tags), artifact.path, tags, is_saved_model=True, notes=notes)
    sources.stored = _stored(artifact) if sources.model.object_graph is not None else None
    return sources


def _stored(values: Artifact) -> TrackableObjectGraph | None:
    """Return the object graph of an object-based checkpoint, or None."""
    checkpoint = values.checkpoint
    if checkpoint is None or not checkpoint.is_object_based:
        return None
    from tfthaw.serde.object_views import read_stored_graph  # only TensorFlow 2 has objects

    return read_stored_graph(checkpoint)


def _opened(path: str, what: str, output: str, opened: ExitStack) -> Artifact:
    try:
        artifact = opened.enter_context(open_artifact(path))
    except NotFoundError as error:
        raise NotFoundError(f"{what} file '{path}' does not exist!", hint=error.hint) from error
    if output:
        spare_sources(artifact, output, [output], in_place=True)
    return artifact


def _opened_checkpoint(path: str, output: str, opened: ExitStack) -> Artifact:
    """Open the checkpoint.

    Raises:
        NotFoundError: It is not there.
        UnsupportedError: It holds no values.
    """
    try:
        artifact = opened.enter_context(open_artifact(path, is_checkpoint=True))
    except NotFoundError as error:
        raise NotFoundError(f"Input checkpoint '{path}' doesn't exist!", hint=error.hint) from error
    if output:
        spare_sources(artifact, output, [output])
    if not artifact.tensors:
        raise UnsupportedError(f"{artifact.located.format} holds no values", path=path,
                               hint="give the checkpoint's prefix with --input_checkpoint")  # fmt: skip
    return artifact


def _exists(path: str) -> bool:
    try:
        SourceFile(path).close()
    except NotFoundError:
        return False
    return True


def _read_saver(path: str) -> object:
    """Read a SaverDef, text or binary.

    Raises:
        FormatError: The file is no SaverDef.
    """
    source = SourceFile(path)
    try:
        if not 0 < source.size <= _MAX_SAVER_BYTES:
            raise FormatError(f"the file has {source.size} bytes; a SaverDef was expected", path=path)
        data = source.read(0, source.size)
    finally:
        source.close()
    is_text = first_field(data) is not None
    message = parse_text(proto.SaverDef, data, path) if is_text else proto.parse(proto.SaverDef, data, path=path)
    if not message.restore_op_name:
        raise FormatError("the SaverDef names no restore op", path=path)
    return message
