"""Which key fills which variable, read from the Savers that TensorFlow builds."""

import warnings

import numpy as np
import pytest

from graphs import constant, graph, node, variable
from tfthaw import proto
from tfthaw.conversion.converting import convert
from tfthaw.ir.graph import GraphIndex
from tfthaw.restore.saved_names import SavedAs, parse_slice_spec, saved_names, what_savers_say
from tfthaw.serde.graphs import graph_from_proto


@pytest.mark.parametrize(("spec", "expected"), [
    ("10 20 0,5:-", SavedAs("k", (10, 20), (0, 0), (5, 20))),
    ("4 1,2", SavedAs("k", (4,), (1,), (2,))),
    ("2 2 -:-", SavedAs("k", (2, 2), (0, 0), (2, 2))),
    ("10 20 0,5", None), ("a 0,5", None), ("10 x,5", None), ("10 5", None), ("-", None), ("10 -1,5", None), ("", None),
    ("²  0,1", None), ("9" * 5000 + " 0,1", None), ("4 0," + "9" * 5000, None),
])  # fmt: skip
def test_slice_texts(spec, expected):
    assert parse_slice_spec("k", spec) == expected


@pytest.mark.parametrize("spec", ["10 20 0,5:0,20", "4 1,2"])
def test_slice_texts_come_back(spec):
    assert parse_slice_spec("k", spec).spec == spec


def test_an_empty_slice_text_is_no_slice():
    with_empty = graph(
        variable("w"), constant("p", "model"), constant("names", ["key"]), constant("slices", [""]),
        node("r", "RestoreV2", "p", "names", "slices"), node("a", "Assign", "w", "r"), node("all", "NoOp", "^a"),
    )  # fmt: skip
    found = saved_names(GraphIndex(with_empty.nodes), "all")

    assert found == {"w": SavedAs("key")}
    assert found["w"].spec == ""


def test_hostile_savers_say_nothing():
    strange = graph(
        variable("w"),
        constant("p", "model"),
        constant("names", ["key"]),
        constant("numbers", [1.0]),
        constant("slices", ["  "]),
        node("few", "RestoreV2", "p"),
        node("far", "RestoreV2", "p", "names", "slices"),
        node("typed", "RestoreV2", "p", "numbers", "slices"),
        node("loop", "Identity", "loop"),
        node("a", "Assign", "w", "few"),
        node("b", "Assign", "w", "far:7"),
        node("c", "Assign", "w", "typed"),
        node("d", "Assign", "w", "loop"),
        node("e", "Assign", "w"),
        node("f", "Assign", "gone", "far"),
        node("g", "Assign", "w", "far"),
        node("all", "NoOp", *(f"^{name}" for name in "abcdefg")),
    )

    assert saved_names(GraphIndex(strange.nodes), "all") == {}


def test_handles_in_circles_end():
    circle = graph(
        node("a", "Identity", "b"), node("b", "Identity", "a"), constant("c", 1.0), node("w", "Assign", "a", "c")
    )

    assert saved_names(GraphIndex(circle.nodes), "w") == {}


def saver_of(prefix, **keys):
    """Return the nodes of a Saver; `keys`: variable -> checkpoint key."""
    names, parts = [*keys.values()], range(len(keys))
    return [
        constant(f"{prefix}/p", "model"), constant(f"{prefix}/names", names), constant(f"{prefix}/s", [""] * len(keys)),
        node(f"{prefix}/r", "RestoreV2", f"{prefix}/p", f"{prefix}/names", f"{prefix}/s"),
        *(node(f"{prefix}/a{number}", "Assign", name, f"{prefix}/r:{number}") for number, name in enumerate(keys)),
        node(f"{prefix}/restore_all", "NoOp", *(f"^{prefix}/a{number}" for number in parts)),
    ]  # fmt: skip


class TestWhichSaver:
    """Several in one graph, and restore nodes that are none."""

    def said(self, keys, *savers, restore_op=None, others=()):
        nodes = [variable("v"), variable("w"), *(node for saver in savers for node in saver), *others]
        found, is_writer = what_savers_say(GraphIndex(graph(*nodes).nodes), restore_op, keys)
        return {name: [each.key for each in every] for name, every in found.items()}, is_writer

    def test_the_one_that_is_named_is_the_only_one(self):
        one, other = saver_of("save", v="a"), saver_of("save_1", v="v", w="w")
        assert self.said(["a", "v", "w"], one, other, restore_op="save/restore_all") == ({"v": ["a"]}, True)
        assert self.said(["v", "w"], one, other, restore_op="gone/restore_all:0")[0] == {"v": ["v"], "w": ["w"]}

    def test_the_one_that_saves_just_these_keys_wrote_them(self):
        savers = saver_of("save", v="a", w="b"), saver_of("save_1", v="v", w="w")
        assert self.said(["a", "b"], *savers) == ({"v": ["a"], "w": ["b"]}, True)
        assert self.said(["v", "w"], *savers) == ({"v": ["v"], "w": ["w"]}, True)

    def test_else_all_whose_keys_are_there_may_have(self):
        savers = saver_of("save", v="a", w="b"), saver_of("save_1", v="v", w="w"), saver_of("save_2", v="x")
        assert self.said(["a", "b", "v", "w"], *savers) == ({"v": ["a", "v"], "w": ["b", "w"]}, False)

    def test_initialisers_that_restore_are_no_savers(self):
        warm = [each for each in saver_of("warm", v="other") if each.name != "warm/restore_all"]
        start = node("init", "NoOp", "^warm/a0")
        assert self.said(["other", "v"], others=[*warm, start]) == ({}, False)


def names_of(tf, build, **options):
    """Return what `saved_names` finds in a graph, by variable."""
    with tf.Graph().as_default() as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saver = build(tf)
        message = proto.GraphDef.FromString(made.as_graph_def().SerializeToString())
        restore = saver.saver_def.restore_op_name
    return saved_names(GraphIndex(graph_from_proto(message).nodes), restore)


def two_variables(tf, use_resource):
    random = tf.compat.v1.random_normal_initializer()
    return [tf.compat.v1.get_variable(name, [4], initializer=random, use_resource=use_resource) for name in ("a", "b")]


@pytest.mark.tf
@pytest.mark.parametrize("use_resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize(
    "options", [{}, {"write_version": 1}, {"sharded": True}, {"restore_sequentially": True}], ids=str
)
def test_every_kind_of_saver(tf, use_resource, options):
    def build(tf):
        two_variables(tf, use_resource)
        return tf.compat.v1.train.Saver(**options)

    assert names_of(tf, build) == {"a": SavedAs("a"), "b": SavedAs("b")}


@pytest.mark.tf
def test_keys_that_were_renamed(tf):
    def build(tf):
        a, b = two_variables(tf, False)
        return tf.compat.v1.train.Saver({"other": a, "b": b}, reshape=True)

    assert names_of(tf, build) == {"a": SavedAs("other"), "b": SavedAs("b")}


@pytest.mark.tf
@pytest.mark.parametrize("main", [0, 1])
def test_the_saver_that_the_model_names_wins(tf, main):
    def build(tf):
        a, b = two_variables(tf, True)
        return [tf.compat.v1.train.Saver({"first": a, "b": b}), tf.compat.v1.train.Saver({"second": a})][main]

    assert names_of(tf, build) == [{"a": SavedAs("first"), "b": SavedAs("b")}, {"a": SavedAs("second")}][main]


@pytest.mark.tf
@pytest.mark.parametrize("use_resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("version", [1, 2])
def test_parts_of_partitioned_variables(tf, use_resource, version):
    def build(tf):
        tf.compat.v1.get_variable(
            "w", [5, 2], partitioner=tf.compat.v1.fixed_size_partitioner(2), use_resource=use_resource
        )
        return tf.compat.v1.train.Saver(write_version=version)

    assert names_of(tf, build) == {
        "w/part_0": SavedAs("w", (5, 2), (0, 0), (3, 2)), "w/part_1": SavedAs("w", (5, 2), (3, 0), (2, 2)),
    }  # fmt: skip


@pytest.mark.tf
@pytest.mark.parametrize("options", [{"sharded": True}, {"write_version": 1}, {"names": "swapped"}], ids=str)
def test_values_come_by_what_the_saver_says(tf, tmp_path, options):
    """With swapped keys, every name is there, has the right shape, and is the wrong one."""
    from v1_sessions import Original

    def build(tf):
        a, b = two_variables(tf, True)
        tf.subtract(a, b, name="out")

    def savers(tf):
        a, b = tf.compat.v1.global_variables()
        if "names" in options:
            return tf.compat.v1.train.Saver({"a": b, "b": a})
        return tf.compat.v1.train.Saver(**options)

    original = Original(tf, tmp_path, build, savers=savers)
    original.assert_freezes(["out:0"])
    convert(original.prefix, tmp_path / "new.meta", to="meta-graph", outputs=["out"], verify="weights")
    with tf.Graph().as_default() as loaded, tf.compat.v1.Session(graph=loaded) as session:
        tf.compat.v1.train.import_meta_graph(str(tmp_path / "new.meta")).restore(session, str(tmp_path / "new"))
        np.testing.assert_array_equal(session.run("out:0"), original.run(["out:0"], {})[0])
