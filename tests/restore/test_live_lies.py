"""Code that was changed after training, so that a checkpoint fits it in more than one way: nothing may be guessed."""

import json

import numpy as np
import pytest
from test_live_variables import live, match, stored, variable

from tfthaw.dtypes import DType
from tfthaw.errors import RestoreError
from tfthaw.ir.attrs import Shape
from tfthaw.ir.live_objects import LiveObject, LiveObjects, LiveVariable
from tfthaw.ir.object_graph import VALUE_KEY, Child
from tfthaw.restore.keras_layouts import locate_legacy
from tfthaw.restore.live_keras_files import match_keras_file
from tfthaw.restore.live_variables import match_live
from tfthaw.tensors import ArrayTensor


def listed(*names):
    """Return a live model whose layers are numbered, each with a kernel of its name."""
    return live({f"layer_with_weights-{number}": {"kernel": variable(name, f"{name}/kernel")}
                 for number, name in enumerate(names)})  # fmt: skip


def trained(*names):
    return stored({f"layer_with_weights-{number}": {"kernel": (f"{name}/kernel", 2)}
                   for number, name in enumerate(names)})  # fmt: skip


class TestPathsAndNames:
    @pytest.mark.parametrize("names", [("item", "user"), ("user", "text")])
    def test_layers_that_changed_places_are_refused(self, names):
        with pytest.raises(RestoreError, match=r"by its path in the checkpoint, and .* by its name") as caught:
            match(listed(*names), trained(*reversed(names)))
        assert len(caught.value.mismatched) == 2
        assert match(listed(*names), trained(*names)).reasons == dict.fromkeys(names, "object")

    def test_a_map_decides(self):
        renames = {"layer_with_weights-0/kernel": "user", "layer_with_weights-1/kernel": "item"}
        found = match(listed("item", "user"), trained("user", "item"), renames=renames)
        assert found.keys == {"user": f"layer_with_weights-0/kernel{VALUE_KEY}",
                              "item": f"layer_with_weights-1/kernel{VALUE_KEY}"}  # fmt: skip

    @pytest.mark.parametrize(
        ("mine", "theirs"),
        [(("a", "b"), ("x", "y")), (("a", "b"), ("b", "c")), (("dense_1", "dense"), ("dense", "dense_1"))],
        ids=["renamed", "one name in common", "numbered as they were made"],
    )
    def test_other_names_alone_are_no_contradiction(self, mine, theirs):
        found = match(listed(*mine), trained(*theirs))
        assert found.keys == {name: f"layer_with_weights-{number}/kernel{VALUE_KEY}"
                              for number, name in enumerate(mine)}  # fmt: skip

    def test_three_in_a_circle_are_refused(self):
        with pytest.raises(RestoreError, match="changed places") as caught:
            match(listed("a", "b", "c"), trained("b", "c", "a"))
        assert len(caught.value.mismatched) == 3


def in_a_list(*names):
    """Return a model of Keras 3 whose layers are in a list, where no checkpoint has them."""
    every = [variable(name, f"m/{name}/kernel") for name in names]
    places = {str(number): place for number, place in enumerate(range(2, 2 + len(every)))}
    return LiveObjects([LiveObject(other_children={"_trainable_variables": 1}), LiveObject(other_children=places),
                        *every], keras=3)  # fmt: skip


def in_the_optimizer(*names, path=("model", "optimizer"), elsewhere=False, **others):
    """Return a checkpoint whose optimizer lists what it trained."""
    tree = {"_trainable_variables": {str(number): (name, 2) for number, name in enumerate(names)}}
    for part in reversed(path):
        tree = {part: tree, **({} if "model" in path else {"net": {}})}
    tree.setdefault("model", {})
    graph, values = stored({**tree, **others})
    if elsewhere:
        first = next(number for number, node in enumerate(graph.nodes) if node.attributes)
        model = next(child.node for child in graph.nodes[0].children if child.name == "model")
        graph.nodes[model].children += [Child(first, "hidden")]
    return graph, values


class TestOrderOfTraining:
    @pytest.mark.parametrize("names", [("x/a/kernel", "x/b/kernel"), ("other/a_3/kernel", "other/b/kernel"),
                                       ("a/kernel", "b/kernel")])  # fmt: skip
    def test_it_counts_where_layers_have_the_same_names(self, names):
        found = match(in_a_list("a", "b"), in_the_optimizer(*names))
        assert found.reasons == {"a": "trained", "b": "trained"}
        assert found.keys["b"] == f"model/optimizer/_trainable_variables/1{VALUE_KEY}"

    def test_layers_of_other_names_are_refused(self):
        with pytest.raises(RestoreError, match=r"a/kernel is at the place of 'x/b/kernel' .* other names") as caught:
            match(in_a_list("a", "b"), in_the_optimizer("x/b/kernel", "x/a/kernel"))
        assert len(caught.value.mismatched) == 2

    def test_what_has_a_place_among_the_objects_is_not_found_by_order(self):
        assert not match(in_a_list("a", "b"), in_the_optimizer("s/a/kernel", "s/b/kernel", elsewhere=True)).keys

    @pytest.mark.parametrize("path", [("optimizer",), ("trainer", "optimizer"), ("opt",)])
    def test_an_optimizer_that_is_not_the_models_own_is_taken_where_it_is_named(self, path):
        names, root = ("x/a/kernel", "x/b/kernel"), "/".join(path)
        with pytest.raises(RestoreError, match=f"nothing says that it was this model: --checkpoint-root {root} takes"):
            match(in_a_list("a", "b"), in_the_optimizer(*names, path=path))
        found = match(in_a_list("a", "b"), in_the_optimizer(*names, path=path), root=root)
        assert found.reasons == {"a": "trained", "b": "trained"}

    def test_two_models_that_were_trained_are_told_apart_by_the_user(self):
        names = ("x/a/kernel", "x/b/kernel")
        other = {"optimizer": {"_trainable_variables": {"0": (names[0], 2), "1": (names[1], 2)}}}
        with pytest.raises(RestoreError, match=r"root model/optimizer or --checkpoint-root critic/optimizer"):
            match(in_a_list("a", "b"), in_the_optimizer(*names, critic=other))
        for root in ("model", "critic", "critic/optimizer"):
            keys = match(in_a_list("a", "b"), in_the_optimizer(*names, critic=other), root=root).keys
            assert {key.partition("/")[0] for key in keys.values()} == {root.partition("/")[0]}

    def test_the_other_keras_has_its_own_order(self):
        numbered, names = in_a_list("dense", "dense_1"), ("x/dense/kernel", "x/dense_1/kernel")
        numbered.keras = 2
        assert len(match(numbered, in_the_optimizer(*names)).keys) == 2
        crossed = in_a_list("dense_1", "dense")
        crossed.keras = 2
        with pytest.raises(RestoreError, match="where they are alike, and nothing says that it has the code's order"):
            match(crossed, in_the_optimizer(*names))


class TestMaps:
    def test_what_names_no_variable_is_refused(self):
        graph = stored({"kernel": ("p", 2), "bias": ("q", 2)})
        objects = live({"kernel": variable("k"), "bias": variable("b")})
        with pytest.raises(RestoreError, match=r"the code has no variable 'kernel_name'; near: k_name"):
            match(objects, graph, renames={"bias": "kernel_name"})
        with pytest.raises(RestoreError, match=r"the code has no variable 'zzz'$"):
            match(objects, graph, renames={"bias": "zzz"})

    def test_a_value_that_fills_two_is_told(self):
        graph = stored({"kernel": ("p", 2), "bias": ("q", 2)})
        found = match(live({"kernel": variable("k"), "bias": variable("b")}), graph, renames={"kernel": "b"})
        assert set(found.keys.values()) == {f"kernel{VALUE_KEY}"}
        assert found.notes == [f"'kernel{VALUE_KEY}' fills b_name and k_name, as the map says"]


class TestRoots:
    def test_another_model_of_the_same_kind_below_the_root_is_told(self):
        graph = stored({"w": ("p", 2), "model": {"w": ("q", 2)}})
        found = match(live({"w": variable("v")}), graph)
        assert found.keys == {"v": f"w{VALUE_KEY}"}
        assert found.notes == ["the model is the checkpoint itself; other values for all of it are in 'model' "
                               "(--checkpoint-root)"]  # fmt: skip
        assert not match(live({"w": variable("v")}), graph, root=".").notes
        assert match(live({"w": variable("v")}), graph, root="model").keys == {"v": f"model/w{VALUE_KEY}"}

    def test_a_part_of_the_same_kind_is_no_rival(self):
        tree = {"w": variable("v"), "child": {"w": variable("")}}
        found = match(live(tree), stored({"w": ("p", 2), "child": {"w": ("q", 2)}}))
        assert (found.keys, found.notes) == ({"v": f"w{VALUE_KEY}"}, [])


def dense_model(*names):
    """Return a Sequential of Keras 2 with layers of these names, and the order in which a legacy file has them."""
    nodes = [LiveObject({f"layer_with_weights-{number}": 1 + 3 * number for number in range(len(names))})]
    for number, name in enumerate(names):
        place = 1 + 3 * number
        nodes.append(LiveObject({"kernel": place + 1, "bias": place + 2}))
        nodes += [LiveObject(variable=LiveVariable(f"{name}/{leaf}", (f"{name}/{leaf}",), DType.float32, Shape(dims)))
                  for leaf, dims in (("kernel", (2, 2)), ("bias", (2,)))]  # fmt: skip
    layers = [{"class_name": "InputLayer", "config": {"name": "x", "batch_input_shape": [None, 2]}}]
    layers += [{"class_name": "Dense", "config": {"name": name, "units": 2, "use_bias": True}} for name in names]
    config = json.loads(json.dumps({"class_name": "Sequential", "config": {"name": "s", "layers": layers}}))
    return LiveObjects(nodes, [], 2, config)


class TestLegacyFiles:
    def fill(self, objects, *names, units=(2, 2, 2), **options):
        weights = {name: [f"{name}/{name}/kernel:0", f"{name}/{name}/bias:0"] for name in names}
        values = {}
        for size, (kernel, bias) in zip(units, weights.values(), strict=False):
            values[kernel] = ArrayTensor(np.zeros((2, size), "float32"))
            values[bias] = ArrayTensor(np.zeros(size, "float32"))
        return match_keras_file(objects, values, lambda tree: locate_legacy(tree, weights, values, 2), path="f.h5",
                                **options)  # fmt: skip

    def test_equal_order(self):
        found = self.fill(dense_model("dense", "dense_1"), "dense", "dense_1")
        assert found.keys["dense/kernel"] == "dense/dense/kernel:0"
        assert found.keys["dense_1/bias"] == "dense_1/dense_1/bias:0"
        assert not found.notes

    def test_names_in_another_order_are_refused(self):
        with pytest.raises(RestoreError, match=r"by its name, and .* by its layer's place") as caught:
            self.fill(dense_model("dense_1", "dense"), "dense", "dense_1")
        assert len(caught.value.mismatched) == 4

    def test_a_map_decides(self):
        renames = {f"{name}/{name}/{leaf}:0": f"{name}/{leaf}" for name in ("dense", "dense_1")
                   for leaf in ("kernel", "bias")}  # fmt: skip
        found = self.fill(dense_model("dense_1", "dense"), "dense", "dense_1", renames=renames)
        assert found.keys["dense/kernel"] == "dense/dense/kernel:0"

    def test_order_is_no_rival_where_shapes_speak_against_it(self):
        found = self.fill(dense_model("b", "a"), "a", "b", units=(2, 3))
        assert found.keys["b/kernel"] == "b/b/kernel:0"

    def test_more_layers_than_the_code_has(self):
        found = self.fill(dense_model("a"), "a", "b")
        assert found.unused == ["b/b/kernel:0", "b/b/bias:0"]


class TestSavedFiles:
    """The layout of Keras 3, which numbers layers by their class."""

    def fill(self, *names):
        objects = live({"layers": {"dense": {"kernel": variable("k")}}})
        values = {name: ArrayTensor(np.zeros(2, "float32")) for name in names}
        return match_keras_file(objects, values, None, path="f.weights.h5")

    def test_more_layers_than_the_code_has(self):
        found = self.fill("layers/dense/kernel", "layers/dense_1/kernel", "optimizer/vars/0")
        assert found.keys == {"k": "layers/dense/kernel"}
        assert found.unused == ["layers/dense_1/kernel"]

    def test_what_the_model_itself_has_no_attribute_for_is_left_over(self):
        assert self.fill("layers/dense/kernel", "head/vars/0").unused == ["head/vars/0"]


def layer(name, *variables, **kind):
    """Return a layer with variables, as its Keras file has them: `vars/0`."""
    made = live({"vars": {str(number): each for number, each in enumerate(variables)}})
    made.nodes[0].name = name
    for key, value in kind.items():
        setattr(made.nodes[0], key, value)
    return made


def model(layers, attributes=()):
    """Return a model with layers in a list, some of which are attributes as well."""
    objects = LiveObjects([LiveObject(name="net"), LiveObject(class_name="list")], keras=2)
    objects.nodes[0].other_children["layers"] = 1
    for number, each in enumerate(layers):
        place = len(objects.nodes)
        for item in each.nodes:
            item.children = {name: child + place for name, child in item.children.items()}
        objects.nodes += each.nodes
        objects.nodes[1].other_children[f"dense_{number}" if number else "dense"] = place
        if each.nodes[0].name in attributes:
            objects.nodes[0].children[each.nodes[0].name] = place
    return objects


class TestLayersOfSavedFiles:
    def fill(self, objects, *names, values=None, **options):
        tensors = {name: ArrayTensor(np.full(2, (values or {}).get(name, 1), "float32")) for name in names}
        return match_keras_file(objects, tensors, None, path="f.weights.h5", **options)

    def test_layers_that_were_saved_as_attributes_are_not_counted_in_keras_2(self):
        objects = model([layer(name, variable(name)) for name in ("query", "key", "value")], ("query", "value"))
        found = self.fill(objects, "query/vars/0", "value/vars/0", "layers/dense/vars/0")
        assert found.keys == {"query": "query/vars/0", "value": "value/vars/0", "key": "layers/dense/vars/0"}
        assert not found.unused
        found = self.fill(objects, "query/vars/0", "value/vars/0", "layers/dense_1/vars/0")  # Keras 3 counts them
        assert found.keys["key"] == "layers/dense_1/vars/0"

    def test_a_shared_variable_may_be_there_twice(self):
        shared = variable("shared")
        objects = model([layer("a", shared), layer("b", shared)])
        places = [place for place, item in enumerate(objects.nodes) if item is shared]
        objects.nodes[places[1] - 1].children["0"] = places[0]
        names = ("layers/dense/vars/0", "layers/dense_1/vars/0")
        found = self.fill(objects, *names)
        assert found.keys == {"shared": names[0]}
        assert not found.unused
        with pytest.raises(RestoreError, match="hold one variable, with other values each"):
            self.fill(objects, *names, values={names[1]: 2})

    @pytest.mark.parametrize(("written", "is_refused"), [
        (("enc", "dec"), False), (("dec", "enc"), True), (("x", "y"), False), (("dec", "x"), True),
    ])  # fmt: skip
    def test_names_that_the_file_gives_to_layers(self, written, is_refused):
        objects = model([layer(name, variable(name)) for name in ("enc", "dec")])
        names = ("layers/dense/vars/0", "layers/dense_1/vars/0")
        layer_names = {name.rpartition("/")[0]: layer_name for name, layer_name in zip(names, written, strict=True)}
        if not is_refused:
            assert len(self.fill(objects, *names, layer_names=layer_names).keys) == 2
            return
        with pytest.raises(RestoreError, match="layers have changed places"):
            self.fill(objects, *names, layer_names=layer_names)
        renames = dict(zip(names, ("dec", "enc"), strict=True))
        assert self.fill(objects, *names, layer_names=layer_names, renames=renames).keys["dec"] == names[0]

    def test_numbers_that_keras_gives_are_no_names(self):
        objects = model([layer(name, variable(name)) for name in ("dense_1", "dense")])
        layer_names = {"layers/dense/vars": "dense", "layers/dense_1/vars": "dense_1"}
        found = self.fill(objects, "layers/dense/vars/0", "layers/dense_1/vars/0", layer_names=layer_names)
        assert len(found.keys) == 2

    def test_a_class_that_reads_files_in_its_own_way_is_refused(self):
        objects = model([layer("affine", variable("v"), class_name="Affine", saves_itself=True)])
        with pytest.raises(RestoreError, match=r"Affine \(affine\) reads its values in a way of its own"):
            self.fill(objects, "layers/dense/vars/0")


class TestVariablesThatTensorFlowNumbers:
    """Equally named ones in a graph: `W`, `W_1`; those that `get_variable` makes have the names that the user gave."""

    def fill(self, mine, theirs, *, is_numbered=True):
        each = [LiveVariable(name, (name,), DType.float32, Shape((2,)), is_numbered=is_numbered) for name in mine]
        values = {name: ArrayTensor(np.zeros(2, "float32")) for name in theirs}
        return match_live(LiveObjects(loose=each), values, None)

    def test_fewer_of_them_are_refused(self):
        with pytest.raises(RestoreError, match="'W' may be 'W_1' in the checkpoint, which has more"):
            self.fill(["W"], ["W", "W_1"])
        with pytest.raises(RestoreError, match="'W_1' may be 'W' in the checkpoint"):
            self.fill(["W_1"], ["W", "W_1"])
        assert len(self.fill(["W", "W_1"], ["W", "W_1", "b"]).keys) == 2
        assert len(self.fill(["W"], ["W", "W_1"], is_numbered=False).keys) == 1

    def test_what_the_code_has_not_is_told(self):
        found = self.fill(["a"], ["a", "b", "a/Adam", "global_step"])
        assert found.notes == ["1 more variables are in the checkpoint, and the code does not have them: b"]


class TestNumberedNames:
    def fill(self, mine, theirs, **shapes):
        objects = live({str(number): variable(name, f"{name}/kernel") for number, name in enumerate(mine)})
        values = {f"{name}/kernel": ArrayTensor(np.zeros(shapes.get(name, 2), "float32")) for name in theirs}
        return match_live(objects, values, None)

    @pytest.mark.parametrize(
        ("mine", "theirs"),
        [(["m/dense"], ["m/dense", "m/dense_1"]), (["dense", "dense_1"], ["dense", "dense_1", "dense_2"]),
         (["dense_1", "dense_2"], ["dense", "dense_1", "dense_2", "dense_3"])],
    )  # fmt: skip
    def test_a_layer_fewer_in_the_code_is_refused(self, mine, theirs):
        with pytest.raises(RestoreError, match=r"'.*dense.*' may be '.*dense.*' in the checkpoint"):
            self.fill(mine, theirs)

    def test_shapes_tell(self):
        assert len(self.fill(["dense", "dense_1"], ["dense", "dense_1", "dense_2"], dense=3, dense_1=4).keys) == 2

    def test_numbers_of_the_users_own_tell(self):
        assert len(self.fill(["head_1"], ["head_0", "head_1", "head_2"]).keys) == 1
        names = [f"layer_{number}" for number in range(12)]
        assert len(self.fill(names[:4], names).keys) == 4
        assert len(self.fill(["block_1"], ["block_1", "block_2"]).keys) == 1
