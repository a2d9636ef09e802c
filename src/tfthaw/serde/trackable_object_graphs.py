"""TrackableObjectGraph <-> object graphs of checkpoints.

Source: trackable_object_graph.proto of TensorFlow.
"""

from __future__ import annotations

from typing import Any

from tfthaw import proto
from tfthaw.ir.object_graph import RegisteredSaver, SerializedTensor, TrackableObject, TrackableObjectGraph
from tfthaw.serde.attrs import rest_of
from tfthaw.serde.object_parts import MessageObjects, PartsReader, children_to_proto, slots_to_proto


def trackable_object_graph_from_proto(message: Any) -> TrackableObjectGraph:
    """Return the object graph of a TrackableObjectGraph, which must not be changed while the graph is in use."""
    reader = _Reader(message, {})
    opaque = rest_of(message, "nodes") if proto.has_unknown_fields(message) else b""
    return TrackableObjectGraph(MessageObjects(message.nodes, reader.trackable_object, {}), opaque)


def trackable_object_graph_to_proto(graph: TrackableObjectGraph, target: Any = None) -> Any:
    """Return the TrackableObjectGraph of an object graph.

    Args:
        graph: The object graph.
        target: An empty TrackableObjectGraph to fill, or None for a new one.
    """
    message = proto.TrackableObjectGraph() if target is None else target
    message.MergeFromString(graph.opaque)
    if isinstance(graph.nodes, MessageObjects):
        message.nodes.MergeFrom(graph.nodes.messages)
        return message
    for item in graph.nodes:
        _trackable_object_to_proto(item, message.nodes.add())
    return message


class _Reader(PartsReader):
    """Reads the objects of a TrackableObjectGraph."""

    def trackable_object(self, message: Any) -> TrackableObject:
        """Return the object of a TrackableObject."""
        saver = message.registered_saver if message.HasField("registered_saver") else None
        flag = message.has_checkpoint_values if message.HasField("has_checkpoint_values") else None
        modelled = ["children", "attributes", "slot_variables", "registered_saver"]
        if flag is not None and not (self.careful and proto.has_unknown_fields(flag)):
            modelled.append("has_checkpoint_values")
        return TrackableObject(
            children=self.children(message.children),
            attributes=[
                SerializedTensor(item.name, item.full_name, item.checkpoint_key,
                                 self.rest(item, "name", "full_name", "checkpoint_key"))
                for item in message.attributes
            ],
            slot_variables=self.slots(message.slot_variables),
            registered_saver=None if saver is None else RegisteredSaver(
                saver.name, saver.object_name, self.rest(saver, "name", "object_name")
            ),
            has_checkpoint_values=None if flag is None else flag.value,
            opaque=self.rest(message, *modelled),
        )  # fmt: skip


def _trackable_object_to_proto(item: TrackableObject, target: Any) -> None:
    target.MergeFromString(item.opaque)
    children_to_proto(item.children, target.children)
    slots_to_proto(item.slot_variables, target.slot_variables)
    for attribute in item.attributes:
        entry = target.attributes.add()
        entry.MergeFromString(attribute.opaque)
        entry.name, entry.full_name = attribute.name, attribute.full_name
        entry.checkpoint_key = attribute.checkpoint_key
    if item.registered_saver is not None:
        saver = target.registered_saver
        saver.SetInParent()
        saver.MergeFromString(item.registered_saver.opaque)
        saver.name, saver.object_name = item.registered_saver.name, item.registered_saver.object_name
    if item.has_checkpoint_values is not None:
        target.has_checkpoint_values.SetInParent()
        target.has_checkpoint_values.value = item.has_checkpoint_values
