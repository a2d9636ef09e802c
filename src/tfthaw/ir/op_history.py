"""Every op that TensorFlow ever registered: since when, until when, with which attrs.

This module reads a table that ships with tfthaw (`op_history.json.gz`); no TensorFlow is asked. The table knows one
build of the last patch of every minor release from 0.12 on (Linux, x86-64, with contrib): an op that came between
two patches of one release counts for the whole release, and one from before 0.12 counts from 0.12 on. It does not
know kernels: an op that is registered may still lack a kernel for a device or an element type.

Source: the op registries of the wheels on PyPI (`tools/make_op_history.py` asks them and describes how); op_def.proto
for the meaning of arguments and attrs. Which package brings which op was read from the registries of those packages.

The table is UTF-8 lines in gzip. The first is the list of versions, oldest first, as JSON. The second is what their
headers state: [the GraphDef version that each writes, [[element type by number, i], ...] known since version i]. Each
other one is an op:

    name TAB presence TAB [is_stateful, contrib, inputs, outputs, attrs, deprecation, earlier]

    presence     bit i says whether version i has it
    contrib      bit i says whether it is one of `tf.contrib` in version i
    argument     "name:kind" with the kind `7` (an element type by number), `T` (the attr that says it), `N*7`, `N*T`
                 (N of them), `@Tlist` (one for each type of a list); a leading `&` takes or gives a reference
    attr         [name, type, presence or 0 for the op's own, defaults, allowed values]
    defaults     [[i, default], ...] from version i on; [i] is a version that begins to have none
    allowed      [[i, values], ...] from version i on; 0 for values (or no entry yet) is all of them
    deprecation  [version of GraphDef, explanation] or 0
    earlier      [[i, inputs, outputs], ...] up to version i, where they changed; missing where they never did
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tfthaw.dtypes import DType
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import Attr, AttrList, FunctionName, OpaqueAttr, Shape

_GZIP = 31  # zlib's window bits for a gzip header; the gzip module would cost a millisecond to import


@dataclass(frozen=True, slots=True)
class AttrHistory:
    """An attr of an op, through TensorFlow's versions.

    Attributes:
        name: Its name.
        type: `string`, `int`, `float`, `bool`, `type`, `shape`, `tensor`, `func`, or `list(...)` of one; it never
            changed for any attr.
        default: The default in the newest version that has the attr, None where it must be given. A tensor is
            an `OpaqueAttr` of its AttrValue.
        since: The first version with the attr.
        until: The last version with it, where later ones lack it or the op; else None.
        defaults: Each default with the version from which on it holds; one entry unless it changed.
        restrictions: The values that are allowed, with the version from which on these are; None is every value. An
            attr that was never restricted has none.
        absent: Versions after `since` and before `until` without it.
    """

    name: str
    type: str
    default: Attr | None
    since: str
    until: str | None
    defaults: tuple[tuple[str, Attr | None], ...]
    restrictions: tuple[tuple[str, tuple[Attr, ...] | None], ...]
    absent: tuple[str, ...] = ()

    @property
    def allowed(self) -> tuple[tuple[Attr, str], ...]:
        """The values that the newest version allows, each with the version from which on; empty where all are."""
        newest = self.restrictions[-1][1] if self.restrictions else None
        return tuple((value, self._allowed_since(value)) for value in newest or ())

    def _allowed_since(self, value: Attr) -> str:
        since = self.restrictions[-1][0]
        for version, values in reversed(self.restrictions):
            if values is not None and value not in values:
                return since
            since = version
        return self.since  # before its first restriction every value was allowed

    def is_in(self, version: str) -> bool:
        """Whether the op has the attr in a version (and is there at all)."""
        return _is_in(version, self.since, self.until, self.absent)

    def allowed_in(self, version: str) -> tuple[Attr, ...] | None:
        """Return the values that a version allows, None where it allows every one."""
        place = _place(version)
        held = [values for since, values in self.restrictions if _place(since) <= place]
        return held[-1] if held else None

    def default_in(self, version: str) -> Attr | None:
        """Return the default in a version of TensorFlow such as `1.15` or `2.4.1`, None where it has none."""
        place = _place(version)
        held = [value for since, value in self.defaults if _place(since) <= place]
        return held[-1] if held else None


@dataclass(frozen=True, slots=True)
class OpHistory:
    """An op of TensorFlow, through its versions.

    Attributes:
        name: The op.
        since: The first version of TensorFlow (`major.minor`) with it; the oldest that the table knows is 0.12.
        until: The last one, where later ones lack it; else None.
        attrs: Its attrs, in the order of the newest definition, then those that it lost.
        inputs: What it takes, in the newest definition, control inputs apart.
        outputs: What it gives.
        is_stateful: Whether it has state or side effects, so that two equal nodes are not one.
        contrib: Whether it is one of `tf.contrib` in the newest version with it.
        contrib_in: The versions in which it is one of `tf.contrib`.
        absent: Versions after `since` and before `until` without it.
        deprecated: The GraphDef version from which on TensorFlow refuses the op in a graph, and what it says then.
        earlier: Other inputs and outputs that it had, each with the last version with these, oldest first.
    """

    name: str
    since: str
    until: str | None
    attrs: tuple[AttrHistory, ...]
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    is_stateful: bool
    contrib: bool
    absent: tuple[str, ...] = ()
    deprecated: tuple[int, str] | None = None
    earlier: tuple[tuple[str, tuple[Argument, ...], tuple[Argument, ...]], ...] = ()
    contrib_in: tuple[str, ...] = ()

    def is_in(self, version: str) -> bool:
        """Whether a version of TensorFlow such as `1.15` or `2.4.1` registers the op."""
        return _is_in(version, self.since, self.until, self.absent)

    def arguments_in(self, version: str) -> tuple[tuple[Argument, ...], tuple[Argument, ...]]:
        """Return what the op takes and gives in a version that has it."""
        place = _place(version)
        for last, inputs, outputs in self.earlier:
            if place <= _place(last):
                return inputs, outputs
        return self.inputs, self.outputs

    def attr(self, name: str) -> AttrHistory | None:
        """Return an attr by its name, or None."""
        return next((attr for attr in self.attrs if attr.name == name), None)


def versions() -> tuple[str, ...]:
    """Return the versions of TensorFlow that the table knows, oldest first."""
    return _table()[0]


def graph_version_of(version: str) -> int:
    """Return the version of GraphDef that a version of TensorFlow such as `1.15` writes, and up to which it reads."""
    graph_versions, _ = _stated()
    return graph_versions[versions().index(minor_of(version))]


def dtype_since(dtype: DType) -> str | None:
    """Return the first version of TensorFlow that knows an element type, or None where none of the table does."""
    place = _stated()[1].get(dtype.value)
    return None if place is None else versions()[place]


def minor_of(version: str) -> str:
    """Return the `major.minor` of a version such as `2.4` or `2.4.1-rc0`."""
    return ".".join(map(str, _place(version)))


def op_history(name: str) -> OpHistory | None:
    """Return what the table knows of an op, or None for an op that TensorFlow never had."""
    return _decoded(name) if name in _table()[1] else None


def unregistered(op_names: Iterable[str]) -> list[str]:
    """Return the ops that the newest TensorFlow of the table does not register, sorted.

    They are custom ops, ops that TensorFlow has dropped (`op_history` tells) and names of functions.
    """
    known, ops = _table()[:2]
    newest = 1 << len(known) - 1
    return sorted({name for name in op_names if name not in ops or not int(ops[name][0]) & newest})


def earliest_version(op_names: Iterable[str]) -> tuple[str | None, list[str]]:
    """Return the first version of TensorFlow that registers all ops, and the ops that ask for it.

    Ops that TensorFlow never had are left out of account; attrs and GraphDef versions are not looked at.

    Args:
        op_names: The ops of a graph.

    Returns:
        The version as `major.minor`, and, sorted, the ops that the version before it lacks (none where that is older
        than the table). The version is None where no release has them all; the ops are then the newest and those
        that were gone when these came.
    """
    known, ops = _table()[:2]
    presence = {name: int(ops[name][0]) for name in op_names if name in ops}
    together = (1 << len(known)) - 1
    for mask in presence.values():
        together &= mask
    if together:
        first = _lowest(together)
        return known[first], sorted(name for name, mask in presence.items() if first and not mask >> first - 1 & 1)
    last = max(_lowest(mask) for mask in presence.values())
    return None, sorted(name for name, mask in presence.items() if _lowest(mask) == last or not mask >> last & 1)


def package_of(op: str) -> str | None:
    """Return the Python package that registers an op which is not TensorFlow's, as pip knows it, or None."""
    for package, names in _names_of_packages().items():
        if op in names:
            return package
    return next((package for prefix, package in _PREFIXES.items() if op.startswith(prefix)), None)


# Ops of well-known packages, by the name that pip knows; then what all ops of a package begin with.
_PACKAGES = {
    "tensorflow-text": """
        CaseFoldUTF8 ConstrainedSequence FastBertNormalize FastWordpieceTokenizeWithOffsets FindSourceOffsets
        MaxSpanningTree NormalizeUTF8 NormalizeUTF8WithOffsetsMap PhraseTokenize RegexSplitWithOffsets RougeL
        SentenceFragments SentenceFragmentsV2 SentencepieceDetokenizeOp SentencepieceIdToStringOp
        SentencepieceOp SentencepieceStringToIdOp SentencepieceTokenizeOp SentencepieceTokenizeWithOffsetsOp
        SentencepieceVocabSizeOp SplitMergeTokenizeWithOffsets TokenizerFromLogits
        UnicodeScriptTokenizeWithOffsets WhitespaceTokenizeWithOffsets WordpieceTokenizeWithOffsets
    """,
    "tf-sentencepiece": """
        SentencepieceDecode SentencepieceEncodeDense SentencepieceEncodeSparse SentencepieceGetPieceSize
        SentencepieceGetPieceType SentencepieceIdToPiece SentencepiecePieceToId
    """,
    "tensorflow-compression": """
        CreateRangeDecoder CreateRangeEncoder EntropyDecodeChannel EntropyDecodeFinalize EntropyDecodeIndex
        EntropyEncodeChannel EntropyEncodeFinalize EntropyEncodeIndex PmfToQuantizedCdf RangeDecode
        RangeEncode RunLengthDecode RunLengthEncode RunLengthGammaDecode RunLengthGammaEncode StochasticRound
        UnboundedIndexRangeDecode UnboundedIndexRangeEncode Y4MDataset
    """,
    "struct2tensor": """
        DecodeProtoMap DecodeProtoMapV2 DecodeProtoSparseV2 DecodeProtoSparseV3 DecodeProtoSparseV4
        EquiJoinAnyIndices EquiJoinIndices RunLengthBefore
    """,
    "deepmd-kit": """
        AddFltNvnmd ConvertForwardMap CopyFltNvnmd Descrpt DescrptNorot DotmulFltNvnmd DprcPairwiseIdx
        EwaldRecp FltNvnmd Gelu GeluCustom GeluGrad GeluGradCustom GeluGradGrad GeluGradGradCustom MapAparam
        MapFltNvnmd MatmulFitnetNvnmd MatmulFlt2fixNvnmd MatmulFltNvnmd MulFltNvnmd NeighborStat PairTab
        ParallelProdForceSeA ProdForce ProdForceGrad ProdForceNorot ProdVirial ProdVirialGrad ProdVirialNorot
        QuantizeNvnmd SoftMinForce SoftMinForceGrad SoftMinSwitch SoftMinVirial SoftMinVirialGrad
        Tanh4FltNvnmd UnaggregatedDy2Dx UnaggregatedDy2DxS UnaggregatedDyDx UnaggregatedDyDxS
    """,
    "tensor2tensor": "PackSequences2 PackSequencesK",
}
_PREFIXES = {
    "TFText>": "tensorflow-text",
    "Addons>": "tensorflow-addons",
    "IO>": "tensorflow-io",
    "SimpleML": "tensorflow-decision-forests",
    "TFRA>": "tensorflow-recommenders-addons",
    "Tfq": "tensorflow-quantum",
    "Scann>": "scann",
    "Reverb": "dm-reverb",
    "Horovod": "horovod",
    "DescrptSe": "deepmd-kit",
    "ProdEnvMat": "deepmd-kit",
    "ProdForceSe": "deepmd-kit",
    "ProdVirialSe": "deepmd-kit",
    "TabulateFusion": "deepmd-kit",
}


@lru_cache(maxsize=1)
def _names_of_packages() -> dict[str, frozenset[str]]:
    return {package: frozenset(names.split()) for package, names in _PACKAGES.items()}


class _Table(NamedTuple):
    versions: tuple[str, ...]
    ops: dict[str, list[str]]
    stated: str


@lru_cache(maxsize=1)
def _table() -> _Table:
    """Read the table: the versions, and, still as text, of each op its presence and its record, and what is stated."""
    data = Path(__file__).with_name("op_history.json.gz").read_bytes()
    first, stated, *lines = zlib.decompress(data, _GZIP).decode().splitlines()
    ops = {}
    for line in lines:
        name, *rest = line.split("\t")
        ops[name] = rest
    return _Table(tuple(json.loads(first)), ops, stated)


@lru_cache(maxsize=1)
def _stated() -> tuple[list[int], dict[int, int]]:
    """Return the GraphDef version of each release, and of each element type the place of the first that knows it."""
    graph_versions, dtypes = json.loads(_table().stated)
    return graph_versions, dict(dtypes)


@lru_cache(maxsize=4096)
def _decoded(name: str) -> OpHistory:
    known, ops = _table()[:2]
    mask = int(ops[name][0])
    is_stateful, contrib, inputs, outputs, attrs, deprecation, *rest = json.loads(ops[name][1])
    earlier = rest[0] if rest else ()
    return OpHistory(
        name=name,
        since=known[_lowest(mask)],
        until=_until(mask),
        attrs=tuple(_attr(record, mask) for record in attrs),
        inputs=tuple(map(_argument, inputs)),
        outputs=tuple(map(_argument, outputs)),
        is_stateful=bool(is_stateful),
        contrib=bool(contrib >> mask.bit_length() - 1 & 1),
        absent=_absent(mask, mask),
        deprecated=(deprecation[0], deprecation[1]) if deprecation else None,
        contrib_in=tuple(known[i] for i in range(contrib.bit_length()) if contrib >> i & 1),
        earlier=tuple(
            (known[last], tuple(map(_argument, taken)), tuple(map(_argument, given))) for last, taken, given in earlier
        ),
    )


def _attr(record: list[Any], op_mask: int) -> AttrHistory:
    known = versions()
    name, kind, presence, defaults, allowed = record
    mask = presence or op_mask
    since = known[_lowest(mask)]
    values = tuple((known[entry[0]], _value(kind, entry[1]) if len(entry) > 1 else None) for entry in defaults)
    single = kind[5:-1] if kind.startswith("list(") else kind
    return AttrHistory(
        name=name,
        type=kind,
        default=values[-1][1] if values else None,
        since=since,
        until=_until(mask),
        defaults=values,
        restrictions=tuple(
            (known[place], tuple(_value(single, value) for value in allowed_now) if allowed_now else None)
            for place, allowed_now in allowed
        ),
        absent=_absent(mask, op_mask),
    )


def _argument(text: str) -> Argument:
    name, _, kind = text.partition(":")
    is_ref = kind.startswith("&")
    kind = kind.lstrip("&")
    if kind.startswith("@"):
        return Argument(name, type_list_attr=kind[1:], is_ref=is_ref)
    number, star, kind = kind.rpartition("*")
    number_attr = number if star else None
    if kind.isdigit():
        return Argument(name, DType(int(kind)), number_attr=number_attr, is_ref=is_ref)
    return Argument(name, type_attr=kind, number_attr=number_attr, is_ref=is_ref)


_LIST_FIELDS = {"string": "s", "int": "i", "float": "f", "bool": "b", "type": "type", "shape": "shape"}


def _value(kind: str, stored: Any) -> Attr:
    """Return the value that the table's JSON stands for in an attr of a type."""
    if kind.startswith("list(") and isinstance(stored, list):
        item = kind[5:-1]
        return AttrList(_LIST_FIELDS[item] if stored else "", [_value(item, value) for value in stored])
    if kind == "string":
        return bytes(stored, "latin-1")
    if kind == "type":
        return DType(stored)
    if kind == "shape":
        return Shape(None if stored is None else tuple(None if size < 0 else size for size in stored))
    if kind == "func":
        return FunctionName(stored)
    if kind in ("int", "float", "bool"):
        plain: int | float | bool = stored
        return plain
    return OpaqueAttr(bytes(stored, "latin-1"))


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _until(mask: int) -> str | None:
    known = versions()
    return None if mask.bit_length() == len(known) else known[mask.bit_length() - 1]


def _absent(mask: int, op_mask: int) -> tuple[str, ...]:
    """Return the versions between first and last that lack what mask tells of, though (or as) the op is there."""
    every = range(_lowest(mask), mask.bit_length())
    whole = op_mask if op_mask != mask else (1 << mask.bit_length()) - 1
    return tuple(versions()[i] for i in every if whole >> i & 1 and not mask >> i & 1)


def _is_in(version: str, since: str, until: str | None, absent: tuple[str, ...]) -> bool:
    place = _place(version)
    within = _place(since) <= place and (until is None or place <= _place(until))
    return within and minor_of(version) not in absent


def _place(version: str) -> tuple[int, int]:
    """Return what versions sort by, for `2.4` and `2.4.1-rc0` alike."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
