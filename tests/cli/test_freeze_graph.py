"""`tfthaw freeze-graph` on the demo model: spellings, messages, and what is refused. No TensorFlow is needed."""

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfthaw
from tfthaw import proto
from tfthaw.cli.freeze_graph import add_arguments
from tfthaw.drop_ins.freeze_graph import FROZEN_BEFORE, NO_OUTPUTS
from tfthaw.proto.text import to_text

OUTPUT = "probabilities"


@pytest.fixture
def graph_def(demo):
    """The graph of the demo model alone, training and Saver included."""
    return proto.parse(proto.MetaGraphDef, (demo / "model.ckpt-1000.meta").read_bytes()).graph_def


@pytest.fixture
def graph(graph_def, tmp_path):
    """Its file."""
    path = tmp_path / "graph.pb"
    path.write_bytes(proto.serialize(graph_def))
    return path


@pytest.fixture
def flags(graph, demo, tmp_path):
    """Return arguments of a command that would succeed, some of them replaced or, with None, left out."""

    def flags(**others):
        named = {
            "input_graph": graph, "input_checkpoint": demo / "model.ckpt-1000", "output_graph": tmp_path / "frozen.pb",
            "output_node_names": OUTPUT,
        }  # fmt: skip
        named |= others
        return [f"--{name}={value}" for name, value in named.items() if value is not None]

    return flags


@pytest.fixture
def freeze(run, tmp_path):
    """Run the command and return its JSON."""

    def freeze(*arguments):
        status, out, err = run("freeze-graph", *arguments, "--json")
        assert (status, err) == (0, "")
        return json.loads(out)

    return freeze


def refusal(run, arguments, status=2):
    ended, out, err = run("freeze-graph", *arguments)
    assert (ended, out) == (status, "")
    return err


def nodes(path):
    with tfthaw.open(path) as artifact:
        return {node.name: node for node in artifact.model().graph.nodes}


def test_constants_are_the_checkpoint_bit_for_bit(freeze, flags, demo, tmp_path):
    result = freeze(*flags())
    assert (result["format"], result["path"]) == ("frozen-graph", str(tmp_path / "frozen.pb"))
    assert result["outputs"] == {"probabilities:0": "probabilities:0"}
    assert result["verified"]["weights"] == {
        "compared": result["variables"], "bytes": result["verified"]["weights"]["bytes"], "different": 0
    }  # fmt: skip
    found = nodes(tmp_path / "frozen.pb")
    assert len(found) == result["nodes"]
    with tfthaw.open(demo / "model.ckpt-1000") as checkpoint:
        frozen = [name for name in checkpoint.variables if name in found]
        assert len(frozen) == result["variables"]
        for name in frozen:
            np.testing.assert_array_equal(found[name].tensor().numpy(), checkpoint.variables[name].numpy())


def test_what_the_script_prints_and_where(run, flags, demo):
    status, out, err = run("freeze-graph", *flags(input_graph=None, input_meta_graph=demo / "model.ckpt-1000.meta"))
    assert status == 0
    assert out.startswith(f"Loaded meta graph file '{demo}/model.ckpt-1000.meta\n")
    assert re.search(r"^\d+ ops in the final graph\.$", out, re.MULTILINE)
    assert "weights: proved" in out
    assert re.fullmatch(r"Froze (\d+) variables\.\nConverted \1 variables to const ops\.\n", err)


SPELLINGS = {
    "equals": lambda name, value: [f"--{name}={value}"],
    "apart": lambda name, value: [f"--{name}", str(value)],
    "dashes": lambda name, value: [f"--{name.replace('_', '-')}={value}"],
    "shortened": lambda name, value: [f"--{name[:-2]}={value}"],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(freeze, graph, demo, tmp_path, spelling):
    named = {
        "input_graph": graph, "input_checkpoint": demo / "model.ckpt-1000", "output_graph": tmp_path / "frozen.pb",
        "output_node_names": f" {OUTPUT} , logits", "restore_op_name": "save/restore_all",
        "filename_tensor_name": "save/Const:0", "checkpoint_version": "2", "input_binary": "true",
        "variable_names_denylist": "conv1/kernel",
    }  # fmt: skip
    arguments = [part for name, value in named.items() for part in SPELLINGS[spelling](name, value)]
    assert freeze(*arguments)["kept_variables"] == ["conv1/kernel"]


@pytest.mark.parametrize("name", ["variable_names_denylist", "variable_names_blacklist"])
def test_both_names_of_the_list_of_variables_that_stay(freeze, flags, name):
    result = freeze(*flags(), f"--{name}=conv1/kernel,conv2/kernel:0")
    assert sorted(result["kept_variables"]) == ["conv1/kernel", "conv2/kernel"]
    assert result["format"] == "graph-def"
    assert any("still variables" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("said", "clears"),
    [
        ([], True), (["--clear_devices"], True), (["--clear_devices=True"], True), (["--clear_devices", "true"], True),
        (["--clear-devices=1"], True), (["--clear_devices=False"], False), (["--clear_devices", "False"], False),
        (["--clear_devices=0"], False), (["--noclear_devices"], False), (["--noclear-devices"], False),
        (["--clear_devices="], False), (["--noclear_devices", "--clear_devices"], True),
    ],
)  # fmt: skip
def test_spellings_of_a_switch(freeze, flags, graph, graph_def, tmp_path, said, clears):
    for node in graph_def.node:
        node.device = "/gpu:0"
    graph.write_bytes(proto.serialize(graph_def))
    freeze(*flags(), *said)
    assert {node.device for node in nodes(tmp_path / "frozen.pb").values()} == ({""} if clears else {"/gpu:0"})


def test_a_switch_takes_true_or_false(run, flags):
    assert "expected true or false, found 'perhaps'" in refusal(run, flags(clear_devices="perhaps"))


@pytest.mark.parametrize("absl", ["--logtostderr", "--alsologtostderr=1", "--verbosity=1", "--stderrthreshold=fatal"])
def test_flags_of_absl_are_taken(freeze, flags, absl):
    assert freeze(*flags(), absl)["variables"] > 0


@pytest.mark.parametrize("old", [["--input_meta_graph"], ["--input_meta_graph=True"], ["--input_meta_graph", "true"]])
def test_the_oldest_meaning_of_input_meta_graph(freeze, flags, demo, old):
    assert freeze(*flags(input_graph=demo / "model.ckpt-1000.meta"), *old)["variables"] > 0


@pytest.mark.parametrize("spelling", ["", ".index", ".data-00000-of-00001", "/"])
def test_a_checkpoint_in_any_spelling(freeze, flags, demo, spelling):
    path = demo if spelling == "/" else f"{demo}/model.ckpt-1000{spelling}"
    assert freeze(*flags(input_checkpoint=path))["variables"] > 0


def test_the_form_of_a_graph_is_seen_and_not_believed(freeze, flags, graph_def, tmp_path):
    freeze(*flags(input_binary="false"))
    first = (tmp_path / "frozen.pb").read_bytes()
    (tmp_path / "text.pb").write_text(to_text(graph_def), encoding="utf-8")
    freeze(*flags(input_graph=tmp_path / "text.pb", input_binary="true"))
    assert (tmp_path / "frozen.pb").read_bytes() == first


def test_the_result_is_binary_whatever_it_is_called_and_replaces_what_was_there(freeze, flags, tmp_path):
    path = tmp_path / "frozen.pbtxt"
    path.write_text("what was here before", encoding="utf-8")
    freeze(*flags(output_graph=path))
    message = proto.parse(proto.GraphDef, path.read_bytes())
    assert any(node.name == OUTPUT for node in message.node)


def test_a_frozen_file_stays_where_freezing_fails(run, flags, tmp_path):
    (tmp_path / "frozen.pb").write_text("kept", encoding="utf-8")
    refusal(run, flags(output_node_names="gone"))
    assert (tmp_path / "frozen.pb").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


class TestMessages:
    """What scripts look for, word for word; TensorFlow's script raises these as ValueError, IOError, AssertionError."""

    @pytest.mark.parametrize(
        ("others", "message"),
        [
            ({"input_checkpoint": "gone"}, "Input checkpoint 'gone' doesn't exist!"),
            ({"input_checkpoint": None}, "Input checkpoint '' doesn't exist!"),
            ({"input_graph": "gone"}, "Input graph file 'gone' does not exist!"),
            ({"input_meta_graph": "gone"}, "Input meta graph file 'gone' does not exist!"),
            ({"input_saver": "gone"}, "Input saver file 'gone' does not exist!"),
            ({"output_node_names": None}, "You need to supply the name of a node to --output_node_names."),
            ({"output_node_names": " , "}, "You need to supply the name of a node to --output_node_names."),
            ({"output_node_names": "probabilitis"}, "probabilitis is not in graph; near names: probabilities"),
            ({"checkpoint_version": 3}, "Invalid checkpoint version (must be '1' or '2'): 3"),
        ],
    )
    def test_word_for_word(self, run, flags, others, message):
        assert message in refusal(run, flags(**others))

    def test_in_the_order_of_the_script(self, run):
        """What is wrong with many flags is said of the one that the script looks at first."""
        wrong = {
            "checkpoint_version": ("3", "Invalid checkpoint version"),
            "input_meta_graph": ("m", "Input meta graph file 'm'"),
            "input_saver": ("s", "Input saver file 's'"),
            "input_checkpoint": ("c", "Input checkpoint 'c'"),
        }
        while wrong:
            name, (_, message) = next(iter(wrong.items()))
            assert message in refusal(run, [f"--{name}={value}" for name, (value, _) in wrong.items()])
            del wrong[name]

    def test_freezing_twice(self, run, freeze, flags, tmp_path):
        freeze(*flags())
        frozen = tmp_path / "once.pb"
        (tmp_path / "frozen.pb").rename(frozen)
        assert (
            "No variables were found in this model. It is likely the model was frozen previously. "
            "You cannot freeze a graph twice."
        ) in refusal(run, flags(input_graph=frozen))

    def test_parts_of_variables_of_which_nothing_says_where_they_lie(self, run, flags, tmp_path):
        graph = proto.GraphDef()
        for part in range(2):
            node = graph.node.add(name=f"w/part_{part}", op="VariableV2")
            node.attr["dtype"].type = 1
            node.attr["shape"].shape.dim.add(size=2)
        graph.node.add(name="out", op="AddN", input=["w/part_0", "w/part_1"]).attr["N"].i = 2
        graph.node[2].attr["T"].type = 1
        (tmp_path / "parts.pb").write_bytes(proto.serialize(graph))
        np.savez(tmp_path / "w.npz", w=np.zeros(4, np.float32))
        arguments = flags(input_graph=tmp_path / "parts.pb", input_checkpoint=tmp_path / "w.npz",
                          output_node_names="out")  # fmt: skip
        said = refusal(run, arguments)
        assert (
            "Models containing partition variables cannot be converted from checkpoint files. "
            "Please pass in a SavedModel using the flag --input_saved_model_dir."
        ) in said
        assert "--input_meta_graph" in said

    def test_what_the_checkpoint_lacks_is_listed(self, run, flags, tmp_path):
        np.savez(tmp_path / "other.npz", other=np.zeros(4, np.float32))
        said = refusal(run, flags(input_checkpoint=tmp_path / "other.npz"), status=1)
        assert "missing: conv1/kernel" in said
        assert "unused: other" in said

    def test_no_graph(self, run, flags):
        assert "nothing says which graph to freeze" in refusal(run, flags(input_graph=None))

    def test_no_place_to_write(self, run, flags):
        assert "--output_graph says where" in refusal(run, flags(output_graph=None))

    def test_a_checkpoint_in_the_place_of_the_graph(self, run, flags, demo):
        (demo / "model.ckpt-1000.meta").unlink()
        assert "checkpoint carries no graph" in refusal(run, flags(input_graph=demo / "model.ckpt-1000.index"))

    def test_a_graph_in_the_place_of_the_checkpoint(self, run, flags, graph):
        assert "graph-def holds no values" in refusal(run, flags(input_checkpoint=graph))

    def test_a_graph_in_the_place_of_the_saved_model(self, run, flags, graph):
        assert "it is a graph-def, no SavedModel" in refusal(run, flags(input_saved_model_dir=graph))

    def test_an_unknown_flag(self, run, flags):
        assert "unrecognized arguments: --output_nodes=x" in refusal(run, [*flags(), "--output_nodes=x"])

    @pytest.mark.parametrize("content", [b"", b"\x00\xff\x01", b"saver { }", b"max_to_keep: 5"])
    def test_a_saver_that_is_none(self, run, flags, tmp_path, content):
        (tmp_path / "saver").write_bytes(content)
        assert str(tmp_path / "saver") in refusal(run, flags(input_saver=tmp_path / "saver"))

    def test_a_damaged_checkpoint(self, run, flags, demo):
        index = demo / "model.ckpt-1000.index"
        index.write_bytes(index.read_bytes()[:-10])
        assert str(index)[:-6] in refusal(run, flags())


def test_a_changed_byte_of_the_checkpoint_is_noticed(run, flags, demo):
    data = demo / "model.ckpt-1000.data-00000-of-00001"
    changed = bytearray(data.read_bytes())
    with tfthaw.open(demo / "model.ckpt-1000") as checkpoint:
        kernel = checkpoint.variables["conv1/kernel"].numpy().tobytes()
    changed[bytes(changed).index(kernel)] ^= 1
    data.write_bytes(changed)
    assert "checksum" in refusal(run, flags())


class TestSavedModels:
    @pytest.fixture
    def saved(self, run, demo, tmp_path):
        path = tmp_path / "saved"
        arguments = ("--to", "saved-model", "--style", "v1", "--outputs", OUTPUT, "--verify", "weights")
        assert run("convert", demo / "model.ckpt-1000.meta", path, *arguments)[0] == 0
        return path

    def test_graph_and_values_are_its_own(self, freeze, flags, saved):
        result = freeze(*flags(input_saved_model_dir=saved))
        assert result["variables"] > 0
        for name in ("input_graph", "input_checkpoint"):
            assert any(f"--{name} was not read" in note for note in result["notes"])

    def test_its_message_may_be_given_as_the_graph(self, freeze, flags, saved, demo):
        expected = freeze(*flags())["verified"]["weights"]["bytes"]
        assert freeze(*flags(input_graph=saved / "saved_model.pb"))["verified"]["weights"]["bytes"] == expected

    def test_values_that_are_not_there(self, run, flags, saved):
        shutil.rmtree(saved / "variables")
        said = refusal(run, flags(input_saved_model_dir=saved), status=1)
        assert "variables/ of the SavedModel should hold them" in said

    def test_a_tag_set_that_it_has_not(self, run, flags, saved):
        assert "serve" in refusal(run, flags(input_saved_model_dir=saved, saved_model_tags="train"))

    def test_initializer_nodes_are_not_run(self, freeze, flags, saved):
        notes = freeze(*flags(input_saved_model_dir=saved, initializer_nodes="init"))["notes"]
        assert any("--initializer_nodes were not run" in note for note in notes)


def test_names_in_the_lists_that_are_no_variable_are_told(freeze, flags):
    notes = freeze(*flags(variable_names_denylist="conv1/kernl"))["notes"]
    said = "--variable_names_denylist names conv1/kernl, which is no variable of the graph; near names: conv1/kernel"
    assert any(note.startswith(said) for note in notes)


def test_object_based_keys_are_found_by_the_names_that_they_record(freeze, flags, demo, tmp_path):
    """TensorFlow's script skips such keys without a word."""
    from tfthaw.export.delivery import Delivery
    from tfthaw.export.weights import write_checkpoint
    from tfthaw.passes.add_saver import OBJECT_GRAPH_KEY
    from tfthaw.tensors import ArrayTensor

    stored = proto.TrackableObjectGraph()
    stored.nodes.add()
    tensors = {}
    with tfthaw.open(demo / "model.ckpt-1000") as checkpoint:
        for number, (name, tensor) in enumerate(checkpoint.variables.items()):
            key = f"v{number}/.ATTRIBUTES/VARIABLE_VALUE"
            stored.nodes[0].children.add(node_id=number + 1, local_name=f"v{number}")
            stored.nodes.add().attributes.add(name="VARIABLE_VALUE", full_name=name, checkpoint_key=key)
            tensors[key] = tensor
        tensors[OBJECT_GRAPH_KEY] = ArrayTensor(np.array(proto.serialize(stored), dtype=object))
        write_checkpoint(tensors, str(tmp_path / "objects"), Delivery())
    expected = freeze(*flags())
    whole = (tmp_path / "frozen.pb").read_bytes()
    assert freeze(*flags(input_checkpoint=tmp_path / "objects"))["variables"] == expected["variables"]
    assert (tmp_path / "frozen.pb").read_bytes() == whole


def test_special_characters_are_plain_ones(freeze, flags, demo, tmp_path):
    folder = tmp_path / "acc [200] ü"
    shutil.copytree(demo, folder)
    result = freeze(*flags(input_checkpoint=folder / "model.ckpt-1000", output_graph=folder / "fro[z]en.pb"))
    assert (folder / "fro[z]en.pb").stat().st_size == result["bytes"]


def test_tensorflow_is_not_needed(flags):
    code = "import sys; sys.modules['tensorflow'] = None; from tfthaw.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "freeze-graph", *flags()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


class TestPage:
    """What docs/freeze-graph.md says of the flags is what there is."""

    @pytest.fixture
    def page(self):
        return (Path(__file__).parents[2] / "docs" / "freeze-graph.md").read_text(encoding="utf-8")

    def test_it_tells_of_every_flag_and_of_no_other(self, page):
        table = page[page.index("| flag |") : page.index("`--json` prints")]
        rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
        told = {flag for row in rows for flag in re.findall(r"`(--\w+)`", row)}
        parser = argparse.ArgumentParser(add_help=False)
        add_arguments(parser)
        shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
        assert told == {flag for action in shown for flag in action.option_strings if "-" not in flag[2:]}

    def test_its_command_runs(self, page, run, graph, demo, tmp_path, monkeypatch):
        command = next(line for line in page.splitlines() if line.startswith("tfthaw freeze-graph "))
        shutil.copy(graph, tmp_path / "graph.pbtxt")
        for path in demo.glob("model.ckpt-1000.*"):
            shutil.copy(path, tmp_path)
        monkeypatch.chdir(tmp_path)
        assert run(*command.replace("softmax", OUTPUT).split()[1:])[0] == 0

    def test_its_messages_are_in_the_code(self, page):
        flat = " ".join(page.split())
        for said in (NO_OUTPUTS, FROZEN_BEFORE):
            assert said in flat


def test_a_saver_that_was_cut_gives_one_message(run, flags, tmp_path):
    whole = proto.serialize(
        proto.SaverDef(filename_tensor_name="save/Const:0", save_tensor_name="save/id:0", restore_op_name="save/gone")
    )
    for stop in range(1, len(whole)):
        (tmp_path / "saver").write_bytes(whole[:stop])
        assert str(tmp_path / "saver") in refusal(run, flags(input_saver=tmp_path / "saver"))


def test_a_saver_whose_restore_op_is_not_there(run, flags, tmp_path):
    (tmp_path / "saver").write_text('restore_op_name: "save/restore_al"', encoding="utf-8")
    assert "no node 'save/restore_al'; near names: save/restore_all" in refusal(
        run, flags(input_saver=tmp_path / "saver")
    )


def test_a_node_that_says_it_gives_more_than_there_can_be(run, flags, graph_def, graph):
    function = graph_def.library.function.add()
    function.signature.name = "many"
    function.signature.output_arg.add(name="y", type_attr="T", number_attr="N")
    node = graph_def.node.add(name="call", op="many")
    node.attr["N"].i = 1 << 60
    node.attr["T"].type = 1
    graph.write_bytes(proto.serialize(graph_def))
    assert "it says that it gives" in refusal(run, flags(output_node_names="call"))
