"""Variables become constants, and what handed them on hands on their values."""

import numpy as np
import pytest

from graphs import FLOAT, Unchanged, by_name, constant, graph, handle, node, ops, placeholder, read, variable
from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import FunctionName
from tfthaw.ir.functions import Function
from tfthaw.passes.freeze import freeze
from tfthaw.tensors import ArrayTensor

VALUE = ArrayTensor(np.float32([1, 2]))


def frozen(*nodes, **values):
    with Unchanged(graph(*nodes)) as argument:
        return freeze(argument, dict.fromkeys(("w", "v"), VALUE) | values)


def test_a_variable_is_a_constant_with_the_very_tensor():
    found = frozen(variable("w", [2]), node("w/read", "Identity", "w"), node("out", "Neg", "w/read"))

    assert ops(found.graph) == {"w": "Const", "w/read": "Identity", "out": "Neg"}
    assert by_name(found.graph)["w"].attrs == {"dtype": FLOAT, "value": VALUE}
    assert found.constants == {"w": "w"}


def test_reads_of_a_handle_are_identities():
    found = by_name(frozen(handle("w", [2]), read("r", "w"), node("out", "Neg", "r")).graph)

    assert (found["r"].op, found["r"].inputs, found["r"].attrs) == ("Identity", ["w"], {"T": FLOAT})


def test_gathers_get_an_axis_in_the_frame_of_their_indices():
    ids = placeholder("ids", dtype=DType.int32)
    gather = node("g", "ResourceGather", "w", "ids:0", "^ids", T=None, dtype=FLOAT, Tindices=DType.int32, batch_dims=1)
    found = by_name(frozen(handle("w", [2]), ids, gather).graph)

    assert found["g"].op == "GatherV2"
    assert found["g"].inputs == ["w", "ids:0", "g/axis", "^ids"]
    assert found["g/axis"].inputs == ["^ids"]
    assert found["g/axis"].tensor().numpy() == 1


def test_the_names_of_axes_are_free():
    ids = placeholder("g/axis", dtype=DType.int32)
    gather = node("g", "ResourceGather", "w", "g/axis", T=None, dtype=FLOAT, Tindices=DType.int32)

    assert by_name(frozen(handle("w", [2]), ids, gather).graph)["g"].inputs == ["w", "g/axis", "g/axis_1"]


def test_handles_through_a_loop_are_values():
    enter = node("e", "Enter", "w", T=DType.resource, frame_name=b"f", is_constant=True, _output_shapes=3)
    found = by_name(frozen(handle("w", [2]), enter, read("r", "e")).graph)

    assert found["e"].attrs == {"T": FLOAT, "frame_name": b"f", "is_constant": True}
    assert found["r"].op == "Identity"


def test_references_through_conds_are_values():
    flag = placeholder("flag", (), DType.bool)
    found = ops(frozen(variable("w"), flag, node("s", "RefSwitch", "w", "flag"), node("i", "RefIdentity", "s:1")).graph)

    assert (found["s"], found["i"]) == ("Switch", "Identity")


def test_questions_are_answered_yes():
    asked = node("q", "IsVariableInitialized", "w", "^c", T=None, dtype=FLOAT)
    other = node("p", "VarIsInitializedOp", "v", T=None)
    found = by_name(frozen(variable("w"), handle("v"), constant("c", 1.0), asked, other).graph)

    assert [bool(found[name].tensor().numpy()) for name in "pq"] == [True, True]
    assert [found[name].inputs for name in "pq"] == [["^v"], ["^w", "^c"]]


def test_references_left_by_an_earlier_freezing_are_mended():
    found = ops(frozen(constant("w", 1.0), constant("flag", True), node("s", "RefSwitch", "w", "flag")).graph)

    assert found["s"] == "Switch"


def test_references_to_old_tables_stay():
    table = node("t", "HashTable", T=None, key_dtype=DType.string, value_dtype=DType.int64)
    found = ops(
        frozen(table, node("i", "RefIdentity", "t", T=DType.string), node("e", "RefEnter", "i", T=DType.string)).graph
    )

    assert (found["i"], found["e"]) == ("RefIdentity", "RefEnter")


def test_variables_that_go_where_they_cannot_be_followed_are_refused():
    call = node("call", "RemoteCall", "target", "w", "v", T=None, f=FunctionName("double"))
    whole = graph(constant("target", "/cpu:0"), handle("w"), handle("v"), call)
    whole.functions.append(Function("double", [Argument("a", DType.resource), Argument("b", DType.resource)]))

    with pytest.raises(UnsupportedError, match="go where") as caught:
        freeze(whole, {})
    assert caught.value.problems == ("call (RemoteCall) hands v, w to double",)


def test_one_of_several_variables_of_one_type_is_one_of_their_values():
    merge = node("m", "RefMerge", "w", "v", N=2)

    found = frozen(variable("w"), variable("v"), merge, node("out", "Neg", "m"))

    assert ops(found.graph) == {"w": "Const", "v": "Const", "m": "Merge", "out": "Neg"}


def test_one_of_several_variables_of_different_types_is_refused():
    merge = node("m", "RefMerge", "w", "v", N=2)

    with pytest.raises(UnsupportedError) as caught:
        freeze(graph(variable("w"), variable("v", dtype=DType.float64), merge, node("out", "Neg", "m")), {})
    assert caught.value.problems == ("m (RefMerge) may be any of v, w",)
