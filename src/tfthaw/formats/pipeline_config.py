"""The `pipeline.config` of an object detection model: a protobuf message in text form, read without its schema.

It reads the text into names and values, merges another text into it, and writes it again. It does not know which fields
there are, nor what they mean, but for the few that an export needs: `eval_config.use_moving_averages`, which fields
hold several values, and which messages hold one of several choices.
Values are kept as they are spelled; comments are not kept.

    model {                         a message: `name {`, `name: {` or `name <`
      num_classes: 90               a value
      aspect_ratios: [1.0, 2.0]     several values, the same as one line for each
    }

Source: the Protocol Buffers text format specification (protobuf.dev, "Text Format Language"); pipeline.proto,
train.proto, eval.proto, input_reader.proto, optimizer.proto and hyperparams.proto of the object detection API for what
is repeated and what is a choice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tfthaw._files import SourceFile
from tfthaw.errors import FormatError, LimitError

EVAL_CONFIG = "eval_config"
USE_MOVING_AVERAGES = "use_moving_averages"

MAX_BYTES = 1 << 20  # the longest that the object detection API ships has 9,000
_MAX_DEPTH = 100  # as deep as protobuf reads
_TRUE = ("true", "True", "t", "1")
_FALSE = ("false", "False", "f", "0")
_TOKEN = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*)+)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<scalar>-?\s*[A-Za-z0-9_.][A-Za-z0-9_.+\-]*)
      | (?P<mark>[{}<>\[\]:,;/])""",
    re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">"}

_REPEATED = frozenset({
    "data_augmentation_options", "freeze_variables", "update_trainable_variables", "metrics_set", "input_path",
    "keypoint_type_weight", "schedule", "eval_input_reader", "super_categories", "keypoint_edge",
    "parameterized_metric", "exclude_prefixes", "aspect_ratios", "scales",
})  # fmt: skip
"""Fields that may stand several times; those that do so already are known by that."""

_CHOICES = frozenset({
    "optimizer", "learning_rate", "regularizer", "initializer", "image_resizer", "anchor_generator", "box_coder",
    "matcher", "similarity_calculator", "box_predictor", "classification_loss", "localization_loss", "model",
})  # fmt: skip
"""Messages that hold one message out of several: another one takes its place."""


@dataclass(slots=True)
class Block:
    """A message: its fields in the order of the text.

    Attributes:
        fields: (name, value): a value as it is spelled, or a message.
    """

    fields: list[tuple[str, str | Block]] = field(default_factory=list)

    def blocks(self, name: str) -> list[Block]:
        """Return the messages of a name."""
        return [value for key, value in self.fields if key == name and isinstance(value, Block)]

    def values(self, name: str) -> list[str]:
        """Return the values of a name, as they are spelled."""
        return [value for key, value in self.fields if key == name and isinstance(value, str)]


def read_pipeline_config(path: str | os.PathLike[str]) -> Block:
    """Read a `pipeline.config`.

    Raises:
        NotFoundError: There is no such file.
        LimitError: It is far larger than any such file.
        FormatError: It is no message in text form, with line and column.
    """
    with SourceFile(path) as source:
        if source.size > MAX_BYTES:
            raise LimitError(f"the text has {source.size} bytes, {MAX_BYTES} are allowed", path=source.path)
        content = source.read(0, source.size)
    try:
        text = bytes(content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"the text is not UTF-8: {error.reason}", path=path, where=f"byte {error.start}") from error
    return parse_pipeline_config(text, path=os.fspath(path))


def parse_pipeline_config(text: str, *, path: str | None = None) -> Block:
    """Read a message from its text form.

    Args:
        text: The text.
        path: The file or flag that it comes from, for errors.

    Raises:
        FormatError: It is no message in text form, with line and column.
    """
    return _Parser(text, path).block(None, 0)


def merged(config: Block, override: Block, name: str = "") -> Block:
    """Return a message with another one merged into it, as protobuf merges texts.

    Values take the place of values, messages are merged, repeated fields grow.

    Args:
        config: The message.
        override: What is merged into it.
        name: The name of the message.
    """
    result = Block(list(config.fields))
    for key, value in override.fields:
        places = [place for place, (known, _) in enumerate(result.fields) if known == key]
        repeats = key in _REPEATED or len(places) > 1 or sum(known == key for known, _ in override.fields) > 1
        if name in _CHOICES and isinstance(value, Block):
            result.fields = [
                (known, old) for known, old in result.fields if known == key or not isinstance(old, Block)
            ]
            places = [place for place, (known, _) in enumerate(result.fields) if known == key]
        if repeats or not places:
            result.fields.append((key, value))
            continue
        old = result.fields[places[0]][1]
        new = merged(old, value, key) if isinstance(old, Block) and isinstance(value, Block) else value
        result.fields[places[0]] = (key, new)
    return result


def uses_moving_averages(config: Block, path: str | None = None) -> bool:
    """Whether `eval_config.use_moving_averages` is set.

    Raises:
        FormatError: Its value is neither true nor false.
    """
    result = False
    for block in config.blocks(EVAL_CONFIG):
        for value in block.values(USE_MOVING_AVERAGES):
            if value not in (*_TRUE, *_FALSE):
                raise FormatError(f"expected true or false, found {value}", path=path,
                                  where=f"{EVAL_CONFIG}.{USE_MOVING_AVERAGES}")  # fmt: skip
            result = value in _TRUE
    return result


def without_moving_averages(config: Block) -> Block:
    """Return the message with `eval_config.use_moving_averages` false: the averages are the values now."""
    switched = Block([(USE_MOVING_AVERAGES, "false")])
    if not config.blocks(EVAL_CONFIG):
        return Block([*config.fields, (EVAL_CONFIG, switched)])
    fields: list[tuple[str, str | Block]] = []
    for key, value in config.fields:
        if key != EVAL_CONFIG or not isinstance(value, Block):
            fields.append((key, value))
            continue
        inner = [(name, "false" if name == USE_MOVING_AVERAGES else old) for name, old in value.fields]
        fields.append((key, Block(inner)))
    result = Block(fields)
    last = result.blocks(EVAL_CONFIG)[-1]
    if not last.values(USE_MOVING_AVERAGES):
        last.fields.append((USE_MOVING_AVERAGES, "false"))
    return result


def config_text(config: Block) -> str:
    """Return the text form of a message, as protobuf lays it out."""
    return "".join(_lines(config, ""))


def _lines(block: Block, indent: str) -> Iterator[str]:
    for name, value in block.fields:
        if isinstance(value, Block):
            yield f"{indent}{name} {{\n"
            yield from _lines(value, f"{indent}  ")
            yield f"{indent}}}\n"
        else:
            yield f"{indent}{name}: {value}\n"


class _Parser:
    """Reads one text."""

    def __init__(self, text: str, path: str | None) -> None:
        self._path = path
        self._text = text
        self._tokens = list(self._split())
        self._here = 0

    def _split(self) -> Iterator[tuple[str, str, int]]:
        """Yield (kind, text, offset) of every token that is no space."""
        offset = 0
        while offset < len(self._text):
            match = _TOKEN.match(self._text, offset)
            if match is None:
                raise self._error(f"expected a field, found {self._text[offset:offset + 20]!r}", offset)
            if match.lastgroup != "space":
                yield str(match.lastgroup), match[0], offset
            offset = match.end()
        yield "end", "", offset

    def block(self, closing: str | None, depth: int) -> Block:
        """Read fields up to a closing mark, or up to the end of the text."""
        if depth > _MAX_DEPTH:
            raise self._error(f"messages nest deeper than {_MAX_DEPTH}", self._tokens[self._here][2])
        block = Block()
        while True:
            kind, text, offset = self._tokens[self._here]
            if closing is None and kind == "end":
                return block
            if closing is not None and text == closing and kind == "mark":
                self._here += 1
                return block
            if kind == "end":
                raise self._error(f"the text ends within a message; expected {closing!r}", offset)
            if kind == "mark" and text in ",;" and block.fields:
                self._here += 1
                continue
            self._field(block, depth)

    def _field(self, block: Block, depth: int) -> None:
        name = self._name()
        has_colon = self._take(":")
        if self._take("["):
            self._values(lambda: block.fields.append((name, self._value(depth))))
            return
        _, text, offset = self._tokens[self._here]
        if not has_colon and text not in _CLOSING:
            raise self._error(f"expected ':' or '{{' behind {name}, found {text!r}", offset)
        block.fields.append((name, self._value(depth)))

    def _values(self, read_one: Callable[[], None]) -> None:
        """Read a list up to its end."""
        if self._take("]"):
            return
        while True:
            read_one()
            if self._take("]"):
                return
            if not self._take(","):
                _, text, offset = self._tokens[self._here]
                raise self._error(f"expected ',' or ']' in a list, found {text!r}", offset)

    def _name(self) -> str:
        """Read the name of a field, or of an extension (`[package.name]`)."""
        kind, text, offset = self._tokens[self._here]
        if kind == "mark" and text == "[":
            parts = []
            while self._tokens[self._here][1] != "]":
                if self._tokens[self._here][0] == "end":
                    raise self._error("the text ends within the name of an extension", offset)
                parts.append(self._tokens[self._here][1])
                self._here += 1
            self._here += 1
            return "".join([*parts, "]"])
        if kind != "scalar" or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
            raise self._error(f"expected the name of a field, found {text!r}", offset)
        self._here += 1
        return text

    def _value(self, depth: int) -> str | Block:
        kind, text, offset = self._tokens[self._here]
        if kind == "mark" and text in _CLOSING:
            self._here += 1
            return self.block(_CLOSING[text], depth + 1)
        if kind not in ("string", "scalar"):
            raise self._error(f"expected a value, found {text!r}" if text else "the text ends before a value", offset)
        self._here += 1
        parts = [text]
        while kind == "string" and self._tokens[self._here][0] == "string":  # they stand for one, as in C
            parts.append(self._tokens[self._here][1])
            self._here += 1
        return " ".join(parts)

    def _take(self, mark: str) -> bool:
        """Go on behind a mark, if it stands here."""
        kind, text, _ = self._tokens[self._here]
        found = kind == "mark" and text == mark
        self._here += found
        return found

    def _error(self, message: str, offset: int) -> FormatError:
        line = self._text.count("\n", 0, offset) + 1
        column = offset - (self._text.rfind("\n", 0, offset) + 1) + 1
        return FormatError(f"it is no protobuf text: {message}", path=self._path, where=f"{line}:{column}")
