"""Live variables and checkpoint keys, where it matters which of several ways is taken."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfthaw.dtypes import DType
from tfthaw.errors import NotFoundError, RestoreError, TfthawError, UnsupportedError
from tfthaw.ir.attrs import Shape
from tfthaw.ir.live_objects import LiveObject, LiveObjects, LiveVariable
from tfthaw.ir.object_graph import VALUE_KEY, Child, SerializedTensor, TrackableObject, TrackableObjectGraph
from tfthaw.restore.live_checkpoints import model_variables, names_by_key, names_of, object_checkpoint
from tfthaw.restore.live_differences import differences
from tfthaw.restore.live_variables import LiveMatches, match_live
from tfthaw.tensors import ArrayTensor

FULL = "VARIABLE_VALUE"


def variable(node, *names, shape=(2,), dtype=DType.float32):
    return LiveObject(variable=LiveVariable(node, names or (f"{node}_name",), dtype, Shape(shape)))


def live(tree, others=None):
    """Return live objects of nested dicts, whose leaves are variables; `others`: path -> another name."""
    objects = LiveObjects()

    def add(item):
        if isinstance(item, LiveObject):
            objects.nodes.append(item)
            return len(objects.nodes) - 1
        here = LiveObject()
        objects.nodes.append(here)
        place = len(objects.nodes) - 1
        here.children.update({name: add(part) for name, part in item.items()})
        return place

    add(tree)
    for path, other in (others or {}).items():
        *way, last = path.split("/")
        place = 0
        for name in way:
            place = objects.nodes[place].children[name]
        objects.nodes[place].other_children[other] = objects.nodes[place].children[last]
    return objects


def stored(tree):
    """Return an object graph of nested dicts, whose leaves are variables: (full name, shape)."""
    nodes, values = [], {}

    def add(item, path):
        nodes.append(TrackableObject())
        place = len(nodes) - 1
        if isinstance(item, dict):
            nodes[place].children = [Child(add(part, [*path, name]), name) for name, part in item.items()]
        else:
            key = "/".join(path) + VALUE_KEY
            values[key] = ArrayTensor(np.zeros(item[1], "float32"))
            nodes[place].attributes = [SerializedTensor(FULL, item[0], key)]
        return place

    add(tree, [])
    return TrackableObjectGraph(nodes), values


def named(*names, shape=(2,)):
    return {name: ArrayTensor(np.zeros(shape, "float32")) for name in names}


def match(objects, graph_and_values, **options):
    graph, values = graph_and_values
    return match_live(objects, values, graph, **options)


class TestObjects:
    def test_equal_names_come_before_those_of_another_keras(self):
        objects = live({"d": {"kernel": variable("k")}}, {"d/kernel": "_kernel"})
        found = match(objects, stored({"d": {"kernel": ("a", 2), "_kernel": ("b", 2)}}))
        assert found.keys == {"k": f"d/kernel{VALUE_KEY}"}
        assert found.reasons == {"k": "object"}
        assert match(objects, stored({"d": {"_kernel": ("b", 2)}})).reasons == {"k": "layer"}

    def test_other_names_that_disagree_are_no_evidence(self):
        objects = live({"x": variable("v", "v")}, {"x": "one"})
        objects.nodes[0].other_children["two"] = 1
        assert match(objects, stored({"one": ("p", 2), "same": {"x": ("v", 2)}}), root=".").keys == {
            "v": f"one{VALUE_KEY}"}  # fmt: skip
        found = match(objects, stored({"one": ("p", 2), "two": ("q", 2)}))
        assert not found.keys

    def test_equal_names_that_disagree_are_refused(self):
        objects = live({"a": {"w": variable("v")}})
        objects.nodes[0].children["b"] = objects.nodes[0].children["a"]
        with pytest.raises(RestoreError, match=rf"v_name is 'a/w{VALUE_KEY}' or 'b/w{VALUE_KEY}'.*") as caught:
            match(objects, stored({"a": {"w": ("p", 2)}, "b": {"w": ("q", 2)}}))
        assert "map" in caught.value.hint
        found = match(objects, stored({"a": {"w": ("p", 2)}, "b": {"w": ("q", 2)}}), renames={"b/w": "v_name"})
        assert (found.keys, found.reasons) == ({"v": f"b/w{VALUE_KEY}"}, {"v": "map"})

    def test_what_no_output_reaches_is_matched_where_it_can_be(self):
        objects = live({"used": variable("v"), "other": variable(""), "big": variable("", shape=(9,))})
        found = match(objects, stored({"used": ("p", 2), "other": ("q", 2), "big": ("r", 2)}))
        assert list(found.keys) == ["v"]
        assert found.places == {1: f"used{VALUE_KEY}", 2: f"other{VALUE_KEY}"}

    def test_where_no_output_is_known_all_are_needed(self):
        objects = live({"a": variable(""), "b": variable("")})
        assert match(objects, stored({"net": {"a": ("p", 2), "b": ("q", 2)}})).places == {
            1: f"net/a{VALUE_KEY}", 2: f"net/b{VALUE_KEY}"}  # fmt: skip

    def test_shapes_do_not_make_it_look_elsewhere(self):
        objects = live({"w": variable("v", "name", shape=(3,))})
        found = match(objects, stored({"w": ("p", 2), "z": ("name", 3)}))
        assert found.keys == {"v": f"w{VALUE_KEY}"}

    def test_layers_are_counted_by_their_variables_where_both_have_as_many(self):
        objects = live({"layer_with_weights-0": {"kernel": variable("a")},
                        "layer_with_weights-1": {"kernel": variable("b")}})  # fmt: skip
        layers = {"0": {}, "1": {"kernel": ("x", 2)}, "2": {}, "3": {"kernel": ("y", 2)}}
        found = match(objects, stored({"_functional": {"_operations": layers}}))
        assert found.keys == {"a": f"_functional/_operations/1/kernel{VALUE_KEY}",
                              "b": f"_functional/_operations/3/kernel{VALUE_KEY}"}  # fmt: skip
        layers["4"] = {"kernel": ("z", 2)}
        assert not match(objects, stored({"_operations": layers})).keys

    def test_positions_that_count_other_layers_do_not_speak_against_it(self):
        objects = live({"layer_with_weights-0": {"w": variable("a")}, "layer_with_weights-1": {"w": variable("b")}})
        top = objects.nodes[0].children
        top.update({"layer-0": top["layer_with_weights-0"], "layer-1": top["layer_with_weights-1"]})
        graph = stored({"layer_with_weights-0": {"w": ("x", 2)}, "layer-0": {}, "layer-1": {"w": ("x", 2)},
                        "layer_with_weights-1": {"w": ("y", 2)}})  # fmt: skip
        assert match(objects, graph).keys == {"a": f"layer_with_weights-0/w{VALUE_KEY}",
                                              "b": f"layer_with_weights-1/w{VALUE_KEY}"}  # fmt: skip

    def test_a_root_by_name(self):
        graph = stored({"a": {"b": {"c": {"d": {"w": ("p", 2)}}}}})
        objects = live({"w": variable("v")})
        assert not match(objects, graph).keys
        found = match(objects, graph, root="a/b/c/d")
        assert (found.keys, found.root) == ({"v": f"a/b/c/d/w{VALUE_KEY}"}, "a/b/c/d")
        with pytest.raises(NotFoundError, match=r"no object 'a/x'.*near names: a"):
            match(objects, graph, root="a/x")
        with pytest.raises(RestoreError, match="no objects"):
            match_live(objects, named("w"), None, root="a")

    def test_the_one_with_more_variables_is_the_model(self):
        objects = live({"w": variable("v"), "b": variable("u")})
        found = match(objects, stored({"old": {"w": ("p", 2)}, "new": {"w": ("q", 2), "b": ("r", 2)}}))
        assert found.root == "new"
        assert found.notes == ["the model is 'new' in the checkpoint"]

    def test_variables_that_the_code_has_not(self):
        objects = live({"net": {"w": variable("v")}})
        graph = stored({"net": {"w": ("p", 2), "more": {"w": ("q", 2)}, "optimizer": {"m": ("r", 2)}},
                        "step": ("s", 2)})  # fmt: skip
        assert match(objects, graph).unused == [f"step{VALUE_KEY}", f"net/more/w{VALUE_KEY}"]
        graph[1][f"step{VALUE_KEY}"] = ArrayTensor(np.int64(3))
        assert match(objects, graph).unused == [f"net/more/w{VALUE_KEY}"]

    def test_what_was_saved_beside_the_model_is_none_of_its_variables(self):
        graph = stored({"model": {"net": {"w": ("p", 2)}}, "other": {"w": ("q", 2)}, "scale": ("s", 2)})
        assert match(live({"net": {"w": variable("v")}}), graph).unused == []

    @pytest.mark.parametrize("parts", [("_iterations", "_learning_rate"), ("iter", "decay", "beta_1")])
    def test_an_optimizer_is_none_of_them_whatever_it_is_called(self, parts):
        graph = stored({"net": {"w": ("p", 2)}, "opt": {**dict.fromkeys(parts, ("s", 2)), "m": {"w": ("q", 2)}}})
        assert match(live({"net": {"w": variable("v")}}), graph).unused == []

    def test_a_layer_that_was_not_built_is_no_difference(self):
        objects = live({"net": {"w": variable("v"), "head": {}}})
        graph = stored({"net": {"w": ("p", 2), "head": {"w": ("q", 2)}}})
        assert match(objects, graph).unused == [f"net/head/w{VALUE_KEY}"]
        objects.nodes[objects.nodes[1].children["head"]].is_built = False
        assert match(objects, graph).unused == []

    def test_names_fill_what_paths_leave_open(self):
        objects = live({"a": {"w": variable("v", "scope/w")}, "b": variable("u", "u")})
        found = match(objects, stored({"other": {"w": ("scope/w", 2)}, "b": ("z", 2)}))
        assert found.keys == {"u": f"b{VALUE_KEY}", "v": f"other/w{VALUE_KEY}"}
        assert found.reasons == {"u": "object", "v": "name"}
        twice = stored({"other": {"w": ("scope/w", 2), "x": ("scope/w", 2)}, "b": ("z", 2)})
        assert list(match(objects, twice).keys) == ["u"]

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from("abw"), st.integers(-3, 9)), max_size=25),
           st.lists(st.tuples(st.integers(0, 6), st.sampled_from("abw"), st.integers(0, 6)), max_size=25))  # fmt: skip
    def test_any_graphs_end_in_keys_of_the_checkpoint_or_in_an_error(self, edges, mine):
        nodes = [TrackableObject([Child(to, name) for place, name, to in edges if place == number],
                                 [SerializedTensor(FULL, "n", f"k{number}")] if number > 3 else []) for number in
                 range(7)]  # fmt: skip
        objects = LiveObjects([variable(f"v{number}") if number > 3 else LiveObject() for number in range(7)])
        for place, name, to in mine:
            objects.nodes[place].children[name] = to
        values = named("k4", "k5", "k6")
        try:
            found = match_live(objects, values, TrackableObjectGraph(nodes))
        except TfthawError:
            return
        assert set(found.keys.values()) <= values.keys()

    def test_a_graph_of_many_circles_takes_no_time(self):
        count = 3000
        nodes = [TrackableObject([Child((number + 1) % count, "a"), Child((number * 7) % count, "b")],
                                 [SerializedTensor(FULL, "n", f"k{number}")]) for number in range(count)]  # fmt: skip
        objects = LiveObjects([variable("v"), *(LiveObject() for _ in range(100))])
        for number in range(101):
            objects.nodes[number].children.update(a=(number + 1) % 101, b=(number * 3) % 101)
        began = time.perf_counter()
        with pytest.raises(RestoreError):
            match_live(objects, named("k0"), TrackableObjectGraph(nodes))
        assert time.perf_counter() - began < 2.0

    def test_layers_that_share_what_is_below_them_take_no_time(self):
        count = 4000
        chain = [TrackableObject([Child(number + 3, "a")]) for number in range(count)]
        layers = TrackableObject([Child(2 + number, str(number)) for number in range(count)])
        graph = TrackableObjectGraph([TrackableObject([Child(1, "_operations")]), layers, *chain, TrackableObject()])
        objects = live({"layer_with_weights-0": {"w": variable("v")}})
        began = time.perf_counter()
        assert not match_live(objects, {}, graph).keys
        assert time.perf_counter() - began < 2.0


class TestNames:
    def test_the_best_name_wins(self):
        objects = live({"a": variable("v", "m/dense/kernel", "dense/kernel")})
        assert match_live(objects, named("dense/kernel"), None).keys == {"v": "dense/kernel"}
        both = named("dense/kernel", "m/dense/kernel")
        assert match_live(objects, both, None).keys == {"v": "m/dense/kernel"}

    def test_a_name_is_used_once(self):
        objects = live({"a": variable("v", "x", "y"), "b": variable("u", "z", "x")})
        assert match_live(objects, named("x", "y"), None).keys == {"v": "x"}
        assert match_live(objects, named("x", "z"), None).keys == {"v": "x", "u": "z"}

    def test_two_that_want_one_name_alike_are_refused(self):
        objects = live({"a": variable("v", "one/w", "w"), "b": variable("u", "two/w", "w")})
        with pytest.raises(RestoreError, match=r"'w' could fill one/w and two/w"):
            match_live(objects, named("w"), None)
        found = match_live(objects, named("w", "mine"), None, renames={"w": "one/w", "mine": "u"})
        assert found.keys == {"v": "w", "u": "mine"}

    def test_a_map_that_is_nearly_right_is_told_what_is_near(self):
        with pytest.raises(RestoreError) as caught:
            match_live(live({"a": variable("v", "w")}), named("dense/kernel"), None, renames={"dense/kernl": "w"})
        assert "map: w shall take 'dense/kernl', which the checkpoint does not have; near: dense/kernel" in str(
            caught.value
        )

    @pytest.mark.parametrize(
        ("renames", "problem"),
        [({"gone": "one/w"}, "shall take 'gone'"), ({"w": "w"}, "'w' is the name of 2 variables"),
         ({"w": "one/w", "k": "one/w"}, "shall take 'w' and 'k'")],
    )  # fmt: skip
    def test_maps_that_do_not_fit(self, renames, problem):
        objects = live({"a": variable("v", "one/w", "w"), "b": variable("u", "two/w", "w")})
        with pytest.raises(RestoreError, match=problem):
            match_live(objects, named("w", "k"), None, renames=renames)

    def test_numbers_that_may_have_moved_are_refused(self):
        """The checkpoint has three layers; the code has two, counted from one since another was built before."""
        objects = live({"a": variable("v", "dense_1/kernel"), "b": variable("u", "dense_2/kernel")})
        values = named("dense/kernel", "dense_1/kernel", "dense_2/kernel")
        with pytest.raises(RestoreError, match=r"'dense_1/kernel' may be 'dense/kernel'"):
            match_live(objects, values, None)
        del values["dense/kernel"]
        assert len(match_live(objects, values, None).keys) == 2

    def test_numbers_that_the_code_uses_itself_have_not_moved(self):
        objects = live({"a": variable("", "dense/kernel"), "b": variable("u", "dense_1/kernel")})
        assert match_live(objects, named("dense/kernel", "dense_1/kernel"), None).keys == {"u": "dense_1/kernel"}
        objects = live({"b": variable("u", "dense_1/kernel")})
        values = named("dense_1/kernel") | named("dense/kernel", shape=(3,))
        assert match_live(objects, values, None).keys == {"u": "dense_1/kernel"}

    def test_loose_variables_have_names_alone(self):
        objects = LiveObjects(loose=[LiveVariable("v", ("w",), DType.float32, Shape((2,)))])
        assert match_live(objects, named("w"), None).keys == {"v": "w"}
        graph, values = stored({"any": ("w", 2)})
        assert match_live(objects, values, graph).keys == {"v": f"any{VALUE_KEY}"}


class TestDifferences:
    def lines(self, objects, values, graph=None):
        return differences(objects, match_live(objects, values, graph), values, graph)

    def test_nothing_is_said_where_all_fits(self):
        assert not self.lines(live({"a": variable("v", "w")}), named("w", "more"))

    def test_names_that_are_near(self):
        objects = live({"a": variable("v", "dense_7/kernel"), "b": variable("u", "conv/bias")})
        lines = self.lines(objects, named("dense/kernel", "conv/bias", "dense/kernel/Adam", "global_step"))
        assert lines == [
            "no value: dense_7/kernel float32[2]; nearest: dense/kernel float32[2]",
            "only in the checkpoint: dense/kernel float32[2]",
        ]

    def test_files_of_keras_number_variables_and_keep_the_optimizer_apart(self):
        objects = live({"a": variable("v", "dense/kernel", shape=(4,)), "b": variable("u", "dense/bias")})
        values = named("layers/dense/vars/1", "optimizer/vars/0") | named("layers/dense/vars/0", shape=(3,))
        found = LiveMatches(keys={"v": "layers/dense/vars/0", "u": "layers/dense/vars/1"})
        assert differences(objects, found, values, None) == [
            "dense/kernel: the code has float32[4], the checkpoint float32[3] ('layers/dense/vars/0')",
        ]

    def test_those_of_the_same_shape_are_nearer(self):
        objects = live({"a": variable("v", "block_2/kernel")})
        lines = self.lines(objects, named("block_3/kernel") | named("block_22/kernel", shape=(3,)))
        assert "no value: block_2/kernel float32[2]; nearest: block_3/kernel float32[2]" in lines

    def test_nothing_in_common(self):
        lines = self.lines(live({"a": variable("v", "w")}), named("layer/x", "layer/y"))
        assert lines[0].startswith("none of the 1 variables of the code is in the checkpoint, which has 2")
        graph, values = stored({"optimizer": {"_variables": {"0": ("iteration", 1)}}})
        assert self.lines(live({"a": variable("v", "w")}), values, graph)[0].startswith("the checkpoint holds no")

    def test_long_lists_are_cut(self):
        objects = live({str(number): variable(f"v{number}", f"layer_{number}/w") for number in range(20)})
        lines = self.lines(objects, named("q/w"))
        assert len(lines) == 9
        assert "... and 14 more missing variables" in lines


class TestCheckpoints:
    def test_names_that_two_variables_have_are_refused(self):
        objects = live({"a": variable("v", "w"), "b": variable("u", "w")})
        with pytest.raises(UnsupportedError, match=r"one name.*\n.*'w': v, u"):
            names_of(objects)
        assert names_of(live({"a": variable("v", "w"), "b": variable("", "w")})) == {"v": "w"}

    def test_names_of_keys(self):
        graph, values = stored({"a": ("x", 2), "b": ("y", 2)})
        assert names_by_key(graph, values) == {f"a{VALUE_KEY}": "x", f"b{VALUE_KEY}": "y"}
        with pytest.raises(UnsupportedError, match="no name"):
            names_by_key(graph, [*values, "table"])
        graph, values = stored({"a": ("x", 2), "b": ("x", 2)})
        with pytest.raises(UnsupportedError, match="'x': a"):
            names_by_key(graph, values)

    def test_what_a_checkpoint_would_leave_out_is_refused(self):
        objects = live({"a": {}, "b": variable("v")})
        objects.nodes[1].other_children["listed"] = len(objects.nodes)
        objects.nodes.append(variable("u", "lost/kernel"))
        value = ArrayTensor(np.zeros(2, "float32"))
        with pytest.raises(UnsupportedError, match=r"in lists.*\n.*lost/kernel"):
            object_checkpoint(objects, {2: value, 3: value})
        made = object_checkpoint(objects, {2: value})
        assert sorted(made.tensors) == [f"model/b{VALUE_KEY}", f"save_counter{VALUE_KEY}"]
        assert list(model_variables(objects)) == [2, 3]

    def test_names_are_escaped_in_keys(self):
        made = object_checkpoint(live({"a/b.c": variable("v")}), {1: ArrayTensor(np.zeros(2, "float32"))})
        assert f"model/a.Sb..c{VALUE_KEY}" in made.tensors

    def test_code_without_objects_has_no_such_checkpoint(self):
        with pytest.raises(UnsupportedError, match="no objects"):
            object_checkpoint(LiveObjects(), {})
