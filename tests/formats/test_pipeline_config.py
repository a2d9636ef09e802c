"""`pipeline.config`: text in, names and values, text out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfthaw.errors import FormatError, LimitError, NotFoundError
from tfthaw.formats.pipeline_config import (
    MAX_BYTES,
    Block,
    config_text,
    merged,
    parse_pipeline_config,
    read_pipeline_config,
    uses_moving_averages,
    without_moving_averages,
)

TEXT = """\
# a comment { that counts for nothing
model {
  ssd: < num_classes: 90, inplace_batchnorm_update: true; >
  anchors: [1.0, -2.5e-3, inf]  # another
  nested [ { a: 1 } , { a: 2 } ]
  [pkg.extension]: { x: 0x1F }
}
name: "one" 'two \\' "three"'
empty {}
list: []
"""
WRITTEN = """\
model {
  ssd {
    num_classes: 90
    inplace_batchnorm_update: true
  }
  anchors: 1.0
  anchors: -2.5e-3
  anchors: inf
  nested {
    a: 1
  }
  nested {
    a: 2
  }
  [pkg.extension] {
    x: 0x1F
  }
}
name: "one" 'two \\' "three"'
empty {
}
"""


def _merge(config, override):
    return config_text(merged(parse_pipeline_config(config), parse_pipeline_config(override)))


def test_every_spelling_of_text_format_becomes_one():
    assert config_text(parse_pipeline_config(TEXT)) == WRITTEN
    assert config_text(parse_pipeline_config(WRITTEN)) == WRITTEN
    assert parse_pipeline_config("").fields == []


def test_protobuf_reads_what_is_written(tmp_path):
    """A message of our schema that has blocks, strings, numbers and repeated fields."""
    from tfthaw import proto
    from tfthaw.proto.text import parse_text

    text = 'saver_def { filename_tensor_name: "a" max_to_keep: 5 } meta_info_def { tags: ["x", \'y\'] }'
    plain = parse_text(proto.MetaGraphDef, text)
    assert parse_text(proto.MetaGraphDef, config_text(parse_pipeline_config(text))) == plain


def test_values_take_the_place_of_values_and_messages_merge():
    assert _merge("a: 1 b { c: 2 d: 3 }", "b { d: 4 e: 5 } f: 6") == "a: 1\nb {\n  c: 2\n  d: 4\n  e: 5\n}\nf: 6\n"


def test_repeated_fields_grow():
    assert _merge("metrics_set: 'a'", "metrics_set: 'b'") == "metrics_set: 'a'\nmetrics_set: 'b'\n"
    assert _merge("x: 1 x: 2", "x: 3") == "x: 1\nx: 2\nx: 3\n"
    assert _merge("x: 1", "x: 2 x: 3") == "x: 1\nx: 2\nx: 3\n"


def test_one_choice_takes_the_place_of_another():
    config = "optimizer { adam_optimizer { a: 1 } use_moving_average: false }"
    override = "optimizer { momentum_optimizer { b: 2 } }"
    expected = "optimizer {\n  use_moving_average: false\n  momentum_optimizer {\n    b: 2\n  }\n}\n"
    assert _merge(config, override) == expected


def test_merging_changes_neither_side():
    config, override = parse_pipeline_config("a { b: 1 }"), parse_pipeline_config("a { b: 2 c: 3 }")
    before = config_text(config), config_text(override)
    merged(config, override)
    assert (config_text(config), config_text(override)) == before


@pytest.mark.parametrize("text", ["true", "True", "1", "t"])
def test_moving_averages_are_found_and_switched_off(text):
    config = parse_pipeline_config(f"eval_config: {{ num_examples: 3 use_moving_averages: {text} }} other {{ }}")
    assert uses_moving_averages(config)
    written = without_moving_averages(config)
    assert not uses_moving_averages(written)
    assert uses_moving_averages(config)
    assert config_text(written) == "eval_config {\n  num_examples: 3\n  use_moving_averages: false\n}\nother {\n}\n"


def test_averages_of_no_config():
    assert not uses_moving_averages(Block())
    assert config_text(without_moving_averages(Block())) == "eval_config {\n  use_moving_averages: false\n}\n"
    assert "use_moving_averages: false" in config_text(without_moving_averages(parse_pipeline_config("eval_config {}")))


def test_the_last_word_on_averages_counts():
    text = "eval_config { use_moving_averages: true } eval_config { use_moving_averages: false }"
    assert not uses_moving_averages(parse_pipeline_config(text))


def test_averages_that_are_neither_true_nor_false():
    with pytest.raises(FormatError, match=r"eval_config\.use_moving_averages: expected true or false, found maybe"):
        uses_moving_averages(parse_pipeline_config("eval_config { use_moving_averages: maybe }"))


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("a {", "1:4", "ends within a message"),
        ("a: 1\nb }", "2:3", "expected ':' or '{' behind b"),
        ("a:", "1:3", "ends before a value"),
        ("a: }", "1:4", "expected a value, found '}'"),
        ("}", "1:1", "expected the name of a field"),
        ("a { > }", "1:5", "expected the name of a field"),
        ("a: [1 2]", "1:7", "expected ',' or ']'"),
        ('a: "open', "1:4", "expected a field"),
        ("[a", "1:1", "within the name of an extension"),
        ("1: 2", "1:1", "expected the name of a field"),
        ("a: 1\n\n  \x00", "3:3", "expected a field"),
        ("a {" * 200, "1:304", "deeper than 100"),
    ],
)
def test_what_is_no_text_format_says_where(text, where, message):
    with pytest.raises(FormatError, match="no protobuf text") as caught:
        parse_pipeline_config(text, path="pipeline.config")
    assert caught.value.path == "pipeline.config"
    assert caught.value.where == where
    assert message in str(caught.value)


def test_files(tmp_path):
    path = tmp_path / "pipeline.config"
    with pytest.raises(NotFoundError):
        read_pipeline_config(path)
    path.write_bytes("\ufeffa: 'ü'".encode())
    assert config_text(read_pipeline_config(path)) == "a: 'ü'\n"
    path.write_bytes(b"a: '\xff'")
    with pytest.raises(FormatError, match="not UTF-8"):
        read_pipeline_config(path)
    path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(LimitError, match=f"{MAX_BYTES} are allowed"):
        read_pipeline_config(path)


_names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
_values = st.sampled_from(["1", "-2.5e-3", "true", "ENUM_1", '"te\\"xt"', "'a' 'b'", "0x1F", "-inf"])
_blocks = st.recursive(
    st.lists(st.tuples(_names, _values), max_size=3).map(Block),
    lambda inner: st.lists(st.tuples(_names, st.one_of(_values, inner)), max_size=3).map(Block), max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(_blocks)
def test_what_is_written_is_read_again(block):
    assert parse_pipeline_config(config_text(block)) == block
    assert merged(block, Block()) == block
    assert merged(Block(), block) == block


@settings(max_examples=100, deadline=None)
@given(st.text("ab:{}<>[],;#'\"\\\n 1-", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        block = parse_pipeline_config(text)
    except FormatError:
        return
    assert parse_pipeline_config(config_text(block)) == block
