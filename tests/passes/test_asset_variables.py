"""Placeholders of assets as constants, for loaders that lift the init op into a function."""

from tfthaw.dtypes import DType
from tfthaw.ir.graph import Graph
from tfthaw.ir.nodes import Node
from tfthaw.passes.asset_variables import name_assets


def test_placeholders_of_assets_hold_the_files_name():
    path, other = (Node(name, "Placeholder", [], "/cpu:0", {"dtype": DType.string}) for name in ("path", "other"))
    reader = Node("r", "Identity", ["path"], "", {"T": DType.string})
    graph = Graph([path, other, reader])

    found = name_assets(graph, {"path": "words.txt", "r": "no placeholder"})

    assert [node.op for node in found.nodes] == ["Const", "Placeholder", "Identity"]
    assert found.nodes[0].tensor().numpy()[()] == b"words.txt"
    assert found.nodes[0].device == "/cpu:0"
    assert found.nodes[1:] == [other, reader]
    assert graph.nodes == [path, other, reader]
