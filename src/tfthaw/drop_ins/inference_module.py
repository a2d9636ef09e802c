"""Export a detection model for inference, as `exporter_main_v2.py` of TensorFlow 2 lays it out.

    saved_model/        saved_model.pb, variables/, assets/: the model's function as `serving_default`
    checkpoint/         ckpt-0.index, ckpt-0.data-00000-of-00001, checkpoint: the model alone, as objects
    pipeline.config     the config, overrides merged

The model is Python code, which is traced; the values are those of the directory's latest checkpoint, all of them.

Source: exporter_main_v2.py and exporter_lib_v2.py of the object detection API.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfthaw import proto
from tfthaw._new_files import new_directory
from tfthaw.conversion.code_values import CheckpointValues
from tfthaw.conversion.from_code import CodeSource, code_model, open_code, with_values
from tfthaw.conversion.options import Options
from tfthaw.conversion.prepared import Prepared, prepare
from tfthaw.conversion.result import Verified
from tfthaw.conversion.selection import public_signatures
from tfthaw.conversion.tf2_saved_model import Tf2Model, to_tf2
from tfthaw.conversion.unfed import refuse_unfed
from tfthaw.drop_ins.inference_directory import (
    CONFIG_FILE,
    LAYOUT_V2,
    SAVED_MODEL,
    read_pipeline,
    require_own_directory,
)
from tfthaw.drop_ins.inference_input import Fed, feed_model
from tfthaw.drop_ins.inference_options import ENCODED, EXAMPLE, InferenceOptions
from tfthaw.drop_ins.inference_outputs import InferenceOutputs, choose_outputs
from tfthaw.drop_ins.inference_proof import Side, prove_live_inference
from tfthaw.drop_ins.inference_result import InferenceExport
from tfthaw.dtypes import DType
from tfthaw.errors import NotFoundError, UnsupportedError, UsageError
from tfthaw.export.delivery import Delivery
from tfthaw.export.saved_model import write_saved_model
from tfthaw.export.weights import write_checkpoint
from tfthaw.formats.checkpoint_state import checkpoint_state_bytes
from tfthaw.formats.names import CHECKPOINT_FORMATS
from tfthaw.ir.attrs import Shape
from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.ir.model import Model
from tfthaw.ir.signatures import DEFAULT_SIGNATURE, Signature, SignatureTensor
from tfthaw.passes.add_saver import OBJECT_GRAPH_KEY
from tfthaw.passes.input_boundary import boundary_at
from tfthaw.passes.prune import PLACEHOLDER_OPS
from tfthaw.restore.model_subtree import model_subtree
from tfthaw.serde.artifacts import Artifact, open_artifact
from tfthaw.serde.object_views import read_stored_graph
from tfthaw.serde.trackable_object_graphs import trackable_object_graph_to_proto
from tfthaw.tensors import ArrayTensor
from tfthaw.verify.inputs import InputSpec, seeded_inputs
from tfthaw.verify.proofs import OutputProof, WeightProof
from tfthaw.verify.weights import graph_constants, require_same

INPUT_KEY = "input_tensor"
CHECKPOINT_FOLDER = "checkpoint"
_CHECKPOINT = "ckpt-0"
_STATE_FILE = "checkpoint"
_SIDE_SIZE = 8  # of what side inputs leave open
_IMAGE_NAMES = (INPUT_KEY, "image", "images", "inputs", "input", "x")


def export_inference_module(options: InferenceOptions) -> InferenceExport:
    """Export a detection model for inference in the layout of TensorFlow 2.

    Args:
        options: The code, the checkpoints' directory, the config, and what is asked of them.

    Returns:
        What was written and what was proved.

    Raises:
        TfthawError: Any of its kinds; nothing is left at the destination.
    """
    began = time.perf_counter()
    directory = str(options.trained_checkpoint_dir)
    if options.code is None:
        raise UsageError(
            "models of TensorFlow 2 are code, and a checkpoint says nothing of it",
            hint="give the code that builds the model with --code MODULE:CALLABLE",
        )  # fmt: skip
    pipeline = read_pipeline(options, keeps_averages=True)
    sources = [directory, options.pipeline_config_path]
    require_own_directory(options.output_directory, LAYOUT_V2, sources, options.overwrite)
    with ExitStack() as opened:
        checkpoint = opened.enter_context(_latest_checkpoint(directory))
        chosen = Options(to="saved-model", code=options.code, input=options.input, checkpoint=checkpoint.path,
                         set=options.set, allow_missing=options.allow_missing)  # fmt: skip
        code = opened.enter_context(open_code(None, chosen))
        values = CheckpointValues(checkpoint, chosen)
        model = with_values(code, code_model(code), values)
        if code.matches is not None:
            opened.enter_context(values.explaining(code.live.traced.objects, code.matches))
        export = _Export(options, code, checkpoint, model, chosen)
        if pipeline.uses_moving_averages:
            export.notes.append("eval_config.use_moving_averages is set, which exports of TensorFlow 2 never looked at")
        with new_directory(options.output_directory, LAYOUT_V2, overwrite=options.overwrite) as folder:
            export.write_saved_model(folder)
            export.write_checkpoint(folder)
            (folder / CONFIG_FILE).write_text(pipeline.text, encoding="utf-8")
            outputs = export.prove_outputs(folder)
    target = Path(options.output_directory)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    return InferenceExport(
        layout="exporter_main_v2", path=options.output_directory,
        files=tuple(path.relative_to(target).as_posix() for path in files),
        bytes=sum(path.stat().st_size for path in files), variables=export.proof.compared,
        seconds=round(time.perf_counter() - began, 3), inputs=export.inputs, outputs=export.outputs,
        moving_averages=False, verified=Verified(export.proof, outputs), notes=tuple(dict.fromkeys(export.notes)),
    )  # fmt: skip


def _latest_checkpoint(directory: str) -> Artifact:
    """Open the latest checkpoint of a directory.

    Raises:
        NotFoundError: There is no such directory, or no checkpoint in it.
        UnsupportedError: It is one of names.
    """
    if not os.path.isdir(directory):
        raise NotFoundError("there is no such directory", path=directory, where="--trained_checkpoint_dir",
                            hint="a single checkpoint is given with --trained_checkpoint_prefix")  # fmt: skip
    artifact = open_artifact(directory)
    if artifact.located.format not in CHECKPOINT_FORMATS or artifact.checkpoint is None:
        raise NotFoundError(f"a directory of checkpoints is expected, this is {artifact.located.format}",
                            path=directory, where="--trained_checkpoint_dir")  # fmt: skip
    if not artifact.checkpoint.is_object_based:
        artifact.close()
        raise UnsupportedError(
            "the latest checkpoint is one of names, as TensorFlow 1 wrote them", path=artifact.located.path,
            hint="give it with --trained_checkpoint_prefix, which writes the layout of export_inference_graph",
        )  # fmt: skip
    artifact.path = artifact.located.path
    return artifact


class _Export:
    """One export under way.

    Attributes:
        notes: What was guessed or defaulted.
        proof: What was proved of the tensors.
        inputs: signature argument -> its tensor in the SavedModel.
        outputs: The same for results.
    """

    def __init__(
        self, options: InferenceOptions, code: CodeSource, checkpoint: Artifact, model: Model, chosen: Options
    ) -> None:
        self.proof = WeightProof()
        self.inputs: dict[str, str] = {}
        self.outputs: dict[str, str] = {}
        self._options = options
        self._code = code
        self._checkpoint = checkpoint
        self._outputs, self._fed = _fed_as_asked(model, options)
        self.notes = [*code.notes, *self._outputs.notes, *self._fed.notes]
        plain = replace(chosen, checkpoint=None, code=None, input=())
        model = replace(self._fed.model, signatures={DEFAULT_SIGNATURE: self._signature()})
        self._prepared: Prepared = prepare(model, plain, path=checkpoint.path)
        refuse_unfed(self._prepared)

    def _signature(self) -> Signature:
        """Return the signature: the code's own, with the input that was asked for."""
        key, signature = _only_signature(self._fed.model)
        name = _image_input(signature, key)
        given = signature.inputs[name]
        node = GraphIndex(self._fed.model.graph.nodes).nodes[self._fed.placeholder.node]
        if str(self._fed.placeholder) != given.tensor:
            dtype = node.dtype("dtype") or DType.invalid
            entry = SignatureTensor(str(self._fed.placeholder), dtype, node.shape())
            others = {other: value for other, value in signature.inputs.items() if other != name}
            return replace(signature, inputs={INPUT_KEY: entry, **others})
        return signature

    def write_saved_model(self, folder: Path) -> None:
        """Write `saved_model/` and prove its tensors."""
        written: Tf2Model = to_tf2(self._prepared, None)
        constants = graph_constants(written.model.graph)

        def check(place: Path) -> None:
            with open_artifact(place) as result:
                proof = require_same(written.variables, result.variables, path=self._options.output_directory)
                require_same(constants, graph_constants(result.model().graph), path=self._options.output_directory)
            self.proof = WeightProof(proof.compared, proof.bytes, 0)

        tensors = {**written.variables, OBJECT_GRAPH_KEY: written.object_graph}
        write_saved_model(written.model, tensors, folder / SAVED_MODEL, Delivery(check=check))
        (folder / SAVED_MODEL / "assets").mkdir(exist_ok=True)
        signature = written.model.signatures[DEFAULT_SIGNATURE]
        self.inputs = {name: entry.tensor for name, entry in signature.inputs.items()}
        self.outputs = {name: entry.tensor for name, entry in signature.outputs.items()}
        self.notes += self._prepared.notes

    def write_checkpoint(self, folder: Path) -> None:
        """Write `checkpoint/`: the model out of the checkpoint, and prove its tensors."""
        reader = self._checkpoint.checkpoint
        stored = None if reader is None else read_stored_graph(reader)
        if reader is None or stored is None:
            raise UnsupportedError("the checkpoint has no object graph", path=self._checkpoint.path)
        values = {key: tensor for key, tensor in reader.tensors.items() if key != OBJECT_GRAPH_KEY}
        root = self._code.matches.root if self._code.matches is not None else None
        needed = set(self._code.matches.keys.values()) if self._code.matches is not None else set()
        subtree = model_subtree(stored, values, root or None, needed)
        if not needed <= subtree.tensors.keys():  # the code's object is wider than what is called the model
            subtree = model_subtree(stored, values, "", needed)
        message = proto.serialize(trackable_object_graph_to_proto(subtree.graph))
        graph = ArrayTensor(np.array(message, object), DType.string)

        def check(place: Path) -> None:
            with open_artifact(place / _CHECKPOINT) as result:
                require_same(subtree.tensors, result.tensors, path=self._options.output_directory)

        target = folder / CHECKPOINT_FOLDER
        target.mkdir()
        write_checkpoint({**subtree.tensors, OBJECT_GRAPH_KEY: graph}, target / _CHECKPOINT, Delivery(check=check))
        (target / _STATE_FILE).write_bytes(checkpoint_state_bytes(_CHECKPOINT, [_CHECKPOINT], [time.time()]))
        self.notes.append(f"{CHECKPOINT_FOLDER}/{_CHECKPOINT} holds the model alone; {subtree.dropped} values of its "
                          f"training were left out")  # fmt: skip

    def prove_outputs(self, folder: Path) -> OutputProof:
        """Run the SavedModel and the live model on the same images and compare."""
        if self._options.verify == "weights":
            return OutputProof(why_not="only the weights were asked for")
        takes = {ENCODED: "encoded", EXAMPLE: "examples"}.get(self._options.input_type, "images")
        at = self._fed.at
        key, signature = _only_signature(self._fed.model)
        image = _image_input(signature, key)
        others = {name: entry for name, entry in signature.inputs.items() if name != image}
        specs = {name: InputSpec(entry.dtype, entry.shape or Shape(None)) for name, entry in others.items()}
        arrays = seeded_inputs(specs, size=_SIDE_SIZE)
        live = Side(
            self._code.name, str(at.tensor), {name: str(tensor) for name, tensor in self._outputs.sources.items()},
            takes if at.dtype is DType.string else "images",
            self._prepared.settings | {entry.tensor: arrays[name] for name, entry in others.items()},
            at.dtype or DType.uint8,
        )  # fmt: skip
        place = self.inputs[image if image in self.inputs else INPUT_KEY]
        written = Side(
            str(folder / SAVED_MODEL), place, self.outputs, takes,
            {self.inputs[name]: array for name, array in arrays.items()}, self._options.fed_dtype,
        )  # fmt: skip
        shapes = [self._fed.shape, at.shape]
        return prove_live_inference(
            self._code, self._prepared.taken, live, [written], shapes, required=self._options.verify == "outputs"
        )


def _fed_as_asked(model: Model, options: InferenceOptions) -> tuple[InferenceOutputs, Fed]:
    """Return what comes out of traced code, and the code's graph with the input that was asked for."""
    key, signature = _only_signature(model)
    tensors = {name: TensorName.parse(entry.tensor) for name, entry in signature.outputs.items()}
    outputs = InferenceOutputs(replace(model, notes=[]), tensors, tensors)
    if options.output_tensors:
        outputs = choose_outputs(outputs.model, options.output_tensors, ())
    tensor = TensorName.parse(options.input_tensor or signature.inputs[_image_input(signature, key)].tensor)
    at = boundary_at(GraphIndex(model.graph.nodes), tensor)
    if at.dtype is options.fed_dtype and at.op in PLACEHOLDER_OPS and options.input_shape is None:
        return outputs, Fed(outputs.model, tensor, at, at.shape)
    fed = feed_model(outputs, replace(options, input_tensor=str(tensor)))
    said = (
        f"{tensor}, which takes {at.dtype.name if at.dtype else '?'}, is fed from {options.input_type} now, with the "
        f"values of pixels as they are: 0 to 255"
    )
    return outputs, replace(fed, notes=[said, *fed.notes[1:]])


def _only_signature(model: Model) -> tuple[str, Signature]:
    """Return the signature of traced code.

    Raises:
        UsageError: There are several.
    """
    known = public_signatures(model)
    if DEFAULT_SIGNATURE in known:
        return DEFAULT_SIGNATURE, known[DEFAULT_SIGNATURE]
    if len(known) != 1:
        raise UsageError(
            f"the code has {len(known)} functions that could be meant: {', '.join(known) or 'none'}",
            hint="let it return one function, or an object whose __call__ it is",
        )  # fmt: skip
    return next(iter(known.items()))


def _image_input(signature: Signature, key: str) -> str:
    """Return which argument takes the image.

    Raises:
        UsageError: Nothing says which of several it is.
    """
    if len(signature.inputs) == 1:
        return next(iter(signature.inputs))
    named = [name for name in _IMAGE_NAMES if name in signature.inputs]
    if named:
        return named[0]
    raise UsageError(
        f"{key} takes {', '.join(signature.inputs) or 'nothing'}, and nothing says which of them is the image",
        hint=f"call it {INPUT_KEY}",
    )  # fmt: skip
