"""Tables that are filled from files, filled from constants."""

import numpy as np
import pytest

from graphs import constant, graph, node
from tfthaw.conversion.converting import convert
from tfthaw.dtypes import DType
from tfthaw.errors import StructureError
from tfthaw.formats.vocabulary import read_lines
from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.passes.vocabularies import embed_vocabularies, file_names

FILE = TensorName("file", 0)


def filled(lines, *, key=DType.string, value=DType.int64, columns=(-2, -1), **attrs):
    """Return keys and values of a table that is filled from lines."""
    fill = node("fill", "InitializeTableFromTextFileV2", "table", "name", "^first", T=None)
    fill.attrs = {"key_index": columns[0], "value_index": columns[1], "vocab_size": -1, "delimiter": b"\t"} | attrs
    table = node("table", "HashTableV2", T=None)
    table.attrs = {"key_dtype": key, "value_dtype": value}
    nodes = [
        constant("file", "vocab.txt"),
        node("name", "Identity", "file"),
        table,
        node("first", "NoOp", T=None),
        fill,
    ]
    assert file_names(graph(*nodes)) == {"fill": FILE}
    result = embed_vocabularies(graph(*nodes), {FILE: lines})
    index = GraphIndex(result.graph.nodes)
    assert result.tables == {"fill": index.nodes["fill/keys"].tensor().size}
    assert index.nodes["fill"].op == "InitializeTableV2"
    assert index.nodes["fill"].inputs == ["table", "fill/keys", "fill/values"]  # it waited for the file's name alone
    return [index.nodes[f"fill/{part}"].tensor().numpy().tolist() for part in ("keys", "values")]


def test_lines_and_their_numbers():
    assert filled([b"a", b"b c"]) == [[b"a", b"b c"], [0, 1]]
    assert filled([b"a", b"b"], offset=5) == [[b"a", b"b"], [5, 6]]
    assert filled([b"a", b"b"], columns=(-1, -2), key=DType.int64, value=DType.string) == [[0, 1], [b"a", b"b"]]
    assert filled([b"a", b"b", b"c"], vocab_size=2) == [[b"a", b"b"], [0, 1]]


def test_a_file_whose_name_a_variable_holds():
    """As a loaded model writes its assets when it is saved again."""
    nodes = [
        node("file", "Placeholder", T=None), node("held", "VarHandleOp", T=None),
        node("set", "AssignVariableOp", "held", "file", T=None), node("name", "ReadVariableOp", "held", T=None),
        node("table", "HashTableV2", T=None), node("fill", "InitializeTableFromTextFileV2", "table", "name", T=None),
    ]  # fmt: skip
    assert file_names(graph(*nodes)) == {"fill": FILE}
    again = node("again", "AssignVariableOp", "held", "other", T=None)
    assert file_names(graph(*nodes, again)) == {"fill": TensorName("name", 0)}


def test_columns():
    lines = [b"a,1,0.5", b"b,-2,1e3"]
    assert filled(lines, columns=(0, 1), delimiter=b",") == [[b"a", b"b"], [1, -2]]
    assert filled(lines, columns=(1, 2), delimiter=b",", key=DType.int32, value=DType.float32) == [[1, -2], [0.5, 1000]]


@pytest.mark.parametrize(
    ("lines", "options", "match"),
    [
        ([b"a", b""], {}, "line 2 of the vocabulary is empty"),
        ([b"a"], {"vocab_size": 2}, "2 lines are expected, the vocabulary has 1"),
        ([b"a\t1", b"b"], {"columns": (0, 1)}, "line 2 of the vocabulary has 1 columns, 2 are needed"),
        ([b"a\tx"], {"columns": (0, 1)}, "is no int64"),
    ],
)
def test_files_that_are_not_what_the_table_asks_for(lines, options, match):
    with pytest.raises(StructureError, match=match):
        filled(lines, **options)


def test_tables_of_other_files_stay():
    fill = node("fill", "InitializeTableFromTextFileV2", "table", "file", T=None)
    nodes = [constant("file", "x"), node("table", "HashTableV2", T=None), fill]
    assert embed_vocabularies(graph(*nodes), {}).graph.nodes == nodes


def test_lines_end_in_newlines(tmp_path):
    for text, lines in [(b"a\r\nb\n", [b"a", b"b"]), (b"a\nb", [b"a", b"b"]), (b"", []), (b"\n\na", [b"", b"", b"a"])]:
        (tmp_path / "v").write_bytes(text)
        assert read_lines(tmp_path / "v") == lines


@pytest.mark.tf
def test_a_saved_model_with_a_vocabulary_stands_alone_when_frozen(tf, tmp_path):
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_bytes(b"cat\ndog\r\nm\xc3\xbcll\n")
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        words = v1.placeholder(tf.string, [None], name="words")
        initializer = tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        ids = tf.lookup.StaticHashTable(initializer, -1).lookup(words)
        weights = v1.get_variable("weights", initializer=np.arange(8, dtype="f4").reshape(4, 2), use_resource=True)
        rows = tf.gather(weights, ids + 1, name="rows")
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        v1.saved_model.simple_save(
            session, str(tmp_path / "saved"), {"words": words}, {"rows": rows}, legacy_init_op=v1.tables_initializer()
        )
    vocabulary.unlink()

    result = convert(tmp_path / "saved", tmp_path / "a.pb", to="frozen-graph", verify="outputs")

    assert result.verified.outputs.done
    assert any("(3 entries) is in the graph now" in note for note in result.notes)
    graph_def = v1.GraphDef.FromString((tmp_path / "a.pb").read_bytes())
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        for _ in range(2):
            found = session.run(result.outputs["rows"], {result.inputs["words"]: ["dog", "müll", "no such word"]})
            assert found.tolist() == [[4, 5], [6, 7], [0, 1]]
