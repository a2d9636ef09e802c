"""Old lookup tables get handles that functions can take."""

import numpy as np
import pytest

from graphs import Unchanged, by_name, constant, graph, node, ops, placeholder, variable
from reference_pairs import run_side_by_side
from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.ir.validation import require_consistent
from tfthaw.passes.resource_tables import to_resource_tables

KINDS = {"key_dtype": DType.string, "value_dtype": DType.int64}


def table(name, op="HashTable"):
    return node(name, op, T=None, container=b"", shared_name=b"shared", **KINDS)


def rewritten(*nodes):
    with Unchanged(graph(*nodes)) as argument:
        found = to_resource_tables(argument)
    require_consistent(found.graph)
    return found


def test_a_graph_without_old_tables_stays_itself():
    argument = graph(table("t", "HashTableV2"), variable("w"))

    assert to_resource_tables(argument).graph is argument


def test_a_table_with_its_filler_and_its_lookups():
    keys = constant("k", np.array([b"a"], object))
    values = constant("v", np.array([5], np.int64))
    found = rewritten(
        table("t"), keys, values,
        node("fill", "InitializeTable", "t", "k", "v", T=None, Tkey=DType.string, Tval=DType.int64),
        placeholder("p", (), DType.bool), node("sw", "RefSwitch", "t", "p", T=DType.string),
        node("find", "LookupTableFind", "sw:1", "k", "v", "^fill", T=None, Tin=DType.string, Tout=DType.int64),
        node("m", "RefMerge", "sw", "t", T=DType.string, N=2), node("size", "LookupTableSize", "m", T=None),
        variable("w"), node("w/read", "Identity", "w"),
    )  # fmt: skip

    assert found.tables == ("t",)
    assert ops(found.graph) == {
        "t": "HashTableV2", "k": "Const", "v": "Const", "fill": "InitializeTableV2", "p": "Placeholder", "sw": "Switch",
        "find": "LookupTableFindV2", "m": "Merge", "size": "LookupTableSizeV2", "w": "VariableV2", "w/read": "Identity",
    }  # fmt: skip
    assert by_name(found.graph)["t"].attrs == {"container": b"", "shared_name": b"shared", **KINDS}
    assert by_name(found.graph)["sw"].attrs["T"] is DType.resource
    assert by_name(found.graph)["find"].inputs == ["sw:1", "k", "v", "^fill"]


def test_other_uses_are_refused_all_at_once():
    with pytest.raises(UnsupportedError) as caught:
        rewritten(table("t"), table("u", "MutableHashTable"), node("r", "Identity", "t", T=DType.string),
                  node("m", "RefMerge", "u", "w", T=DType.string, N=2), variable("w"))  # fmt: skip
    assert caught.value.problems == (
        "m (RefMerge) takes w beside a lookup table, which is none",
        "r (Identity) takes the handle of t",
    )


@pytest.mark.tf
@pytest.mark.parametrize("where", ["straight", "loop", "cond"])
def test_lookups_find_the_same(tf, where):
    def build(tf):
        made = tf.raw_ops.HashTable(key_dtype=tf.string, value_dtype=tf.int64, shared_name="old")
        tf.raw_ops.InitializeTable(
            table_handle=made, keys=["a", "b"], values=tf.constant([5, 7], "int64"), name="fill"
        )
        words = tf.compat.v1.placeholder("string", [None], name="words")
        default = tf.constant(-1, "int64")

        def find():
            return tf.raw_ops.LookupTableFind(table_handle=made, keys=words, default_value=default)

        if where == "loop":
            found = tf.compat.v1.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y + find()), [0, find()])[1]
        elif where == "cond":
            flag = tf.compat.v1.placeholder_with_default(True, [], name="flag")
            found = tf.compat.v1.cond(flag, find, lambda: tf.constant([0], "int64"))
        else:
            found = find()
        tf.identity(found, name="out")
        tf.raw_ops.LookupTableSize(table_handle=made, name="size")

    before, after = run_side_by_side(tf, build, to_resource_tables)
    for session in (before, after):
        session.run("fill")
    feeds = {"words:0": np.array([b"b", b"x", b"a"], object)}
    for one, other in zip(before.run(["out:0", "size:0"], feeds), after.run(["out:0", "size:0"], feeds), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not {item.type for item in after.graph.get_operations()} & {"HashTable", "LookupTableFind", "RefEnter"}
