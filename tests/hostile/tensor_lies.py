"""Containers of tensors that contradict themselves: indexes, headers, archives, HDF5 files."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from judge import Case
from seeds import B, W, keras_members, weights_h5_bytes, write_checkpoint, zip_bytes

from tfthaw import proto
from tfthaw._files import SourceFile
from tfthaw.formats.table import Table, TableWriter


def _file(folder: Path, name: str, file: str, data: bytes, *, must_fail: bool = True) -> Case:
    (folder / name).mkdir()
    (folder / name / file).write_bytes(data)
    return Case(name, str(folder / name / file), must_fail=must_fail, formats=("checkpoint", "npz"))


def rewrite_index(prefix: str, change: Callable[[Any, dict[str, Any]], None]) -> None:
    """Decode an index, change its header and entries, and write it again with right checksums."""
    path = Path(f"{prefix}.index")
    with SourceFile(path) as source:
        rows = [(bytes(key), bytes(value)) for key, value in Table(source).items()]
    header = proto.BundleHeaderProto.FromString(rows[0][1])
    entries = {key.decode(): proto.BundleEntryProto.FromString(value) for key, value in rows[1:]}
    change(header, entries)
    with open(path, "wb") as file:
        table = TableWriter(file)
        table.add(b"", header.SerializeToString())
        for key in sorted(entries):
            table.add(key.encode(), entries[key].SerializeToString())
        table.finish()


def _set(**fields: Any) -> Callable[[Any, dict[str, Any]], None]:
    def change(_: Any, entries: dict[str, Any]) -> None:
        for field, value in fields.items():
            setattr(entries["w"], field, value)

    return change


def _shape(*sizes: int, size: int | None = None) -> Callable[[Any, dict[str, Any]], None]:
    def change(_: Any, entries: dict[str, Any]) -> None:
        del entries["w"].shape.dim[:]
        for length in sizes:
            entries["w"].shape.dim.add(size=length)
        if size is not None:
            entries["w"].size = size

    return change


def _shards(count: int) -> Callable[[Any, dict[str, Any]], None]:
    def change(header: Any, _: dict[str, Any]) -> None:
        header.num_shards = count

    return change


def _slices(*extents: list[tuple[int, int]]) -> Callable[[Any, dict[str, Any]], None]:
    def change(_: Any, entries: dict[str, Any]) -> None:
        for part in extents:
            entry = entries["w"].slices.add()
            for start, length in part:
                entry.extent.add(start=start, length=length)

    return change


def _newer(header: Any, _: dict[str, Any]) -> None:
    header.version.min_consumer = 99


def _big_endian(header: Any, _: dict[str, Any]) -> None:
    header.endianness = 1


INDEXES: dict[str, Callable[[Any, dict[str, Any]], None]] = {
    "10-tb": _shape(10 << 40, size=40 << 40),
    "shape-larger-than-size": _shape(100),
    "shape-negative": _shape(-1, 4),
    "shape-overflow": _shape(1 << 40, 1 << 40),
    "rank-300": _shape(*[1] * 300),
    "offset-past-end": _set(offset=1 << 40),
    "offset-negative": _set(offset=-4),
    "size-negative": _set(size=-4),
    "size-past-end": _set(size=1 << 40),
    "shard-7": _set(shard_id=7),
    "shard-negative": _set(shard_id=-1),
    "type-unknown": _set(dtype=9999),
    "type-none": _set(dtype=0),
    "type-string": _set(dtype=7),
    "type-variant": _set(dtype=21),
    "type-resource": _set(dtype=20),
    "checksum": _set(crc32c=1),
    "shards-2-billion": _shards((1 << 31) - 1),
    "shards-negative": _shards(-1),
    "shards-zero": _shards(0),
    "slices-without-data": _slices([(0, 2)], [(2, 2)]),
    "slices-negative": _slices([(-5, 1)]),
    "slices-of-rank-9": _slices([(0, 1)] * 9),
    "slices-huge": _slices([(0, 1 << 62), (0, 1 << 62)]),
    "min-consumer-99": _newer,
    "big-endian": _big_endian,
}
# types are copied as they are into another checkpoint; elsewhere what is no array of numbers is left out, with a note
TYPES = {"type-unknown", "type-none", "type-string", "type-variant", "type-resource"}
TOLERATED = {"shards-zero", "big-endian", *TYPES}


def lying_indexes(folder: Path) -> Iterator[Case]:
    """Yield checkpoints whose index is well made and says what cannot be."""
    for name, change in INDEXES.items():
        prefix = write_checkpoint(folder / f"index-{name}")
        rewrite_index(prefix, change)
        yield Case(
            f"index-{name}", prefix, must_fail=name not in TOLERATED, formats=("checkpoint", "safetensors", "npz")
        )


def lying_safetensors(folder: Path) -> Iterator[Case]:
    """Yield safetensors files whose header lies."""

    def pack(header: Any, data: bytes = bytes(48), length: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + data

    def tensor(dtype: str = "F32", shape: Any = (4, 3), offsets: Any = (0, 48)) -> dict[str, Any]:
        return {"dtype": dtype, "shape": shape, "data_offsets": offsets}

    for name, data in {
        "header-past-end": pack({"w": tensor()}, length=1 << 60),
        "header-zero": pack(b"", length=0),
        "header-nested": pack(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "header-list": pack(b"[1, 2]"),
        "header-not-text": pack(b'{"\xff": 1}'),
        "twice": pack(b'{"w": %b, "w": %b}' % ((json.dumps(tensor()).encode(),) * 2)),
        "10-tb": pack({"w": tensor(shape=[10 << 40], offsets=[0, 40 << 40])}),
        "hole": pack({"w": tensor(shape=[1], offsets=[0, 4])}),
        "overlap": pack({"a": tensor(), "b": tensor()}),
        "negative": pack({"w": tensor(shape=[-4, -3])}),
        "offsets-reversed": pack({"w": tensor(offsets=[48, 0])}),
        "offset-float": pack({"w": tensor(offsets=[0, 48.0])}),
        "offset-number": pack({"w": tensor(offsets=[0, 10**400])}),
        "type": pack({"w": tensor("F99")}),
        "type-number": pack({"w": tensor(7)}),
        "shape-text": pack({"w": tensor(shape="4, 3")}),
        "shape-bool": pack({"w": tensor(shape=[True] * 12, offsets=[0, 4])}),
        "no-fields": pack({"w": {}}),
        "metadata-nested": pack({"__metadata__": {"a": {}}, "w": tensor()}),
        "number": pack(b'{"w": 1e999999}'),
        "digits": pack(b'{"w": ' + b"9" * 50_000 + b"}"),
    }.items():
        yield _file(folder, f"safetensors-{name}", "model.safetensors", data)


def lying_archives(folder: Path) -> Iterator[Case]:
    """Yield npz and Keras archives: bombs, escapes, pickles, contradictions."""

    def npz(**members: bytes) -> bytes:
        return zip_bytes({f"{name}.npy": data for name, data in members.items()})

    good = _npy(W)
    yield _file(folder, "npz-empty-zip", "model.npz", zip_bytes({}))
    yield _file(
        folder, "npz-bomb", "model.npz", npz(w=_header(b"|u1", "(300000000,)") + bytes(300_000_000)), must_fail=False
    )
    yield _file(folder, "npz-pickle", "model.npz", npz(w=_header(b"|O", "(1,)") + pickle.dumps([1])))
    yield _file(folder, "npz-10-tb", "model.npz", npz(w=_header(b"<f4", "(10000000000000,)")))
    yield _file(folder, "npz-negative", "model.npz", npz(w=_header(b"<f4", "(-1,)") + bytes(4)))
    yield _file(folder, "npz-header-code", "model.npz", npz(w=_header(b"<f4", "__import__('os').getpid()")))
    yield _file(folder, "npz-header-nested", "model.npz", npz(w=_header(b"<f4", "(" * 30_000 + ")" * 30_000)))
    yield _file(
        folder, "npz-fields", "model.npz", npz(w=_header(b"<f4", "(1,)").replace(b"'<f4'", b"[('a','<f4')]") + bytes(4))
    )
    yield _file(folder, "npz-short", "model.npz", npz(w=good[:-1]))
    yield _file(folder, "npz-long", "model.npz", npz(w=good + b"x"))
    yield _file(folder, "npz-not-npy", "model.npz", npz(w=b"hello"))
    yield _file(folder, "npz-escape", "model.npz", zip_bytes({"../../w.npy": good}), must_fail=False)
    members = keras_members()
    yield _file(folder, "keras-escape", "model.keras", zip_bytes(members | {"../../evil": b"x"}))
    yield _file(folder, "keras-absolute", "model.keras", zip_bytes(members | {"/etc/evil": b"x"}))
    yield _file(folder, "keras-no-weights", "model.keras", zip_bytes({"config.json": members["config.json"]}))
    yield _file(folder, "keras-deep-config", "model.keras", zip_bytes(members | {"config.json": b"[" * 200_000}))
    yield _file(folder, "keras-config-number", "model.keras", zip_bytes(members | {"config.json": b"7"}))
    yield _file(folder, "keras-bad-weights", "model.keras", zip_bytes(members | {"model.weights.h5": b"hello"}))
    stored = zip_bytes(members, zipfile.ZIP_STORED)
    for name, data in {
        "end-zero": stored[:-22] + b"PK\5\6" + bytes(18),
        "end-ff": stored[:-18] + b"\xff" * 18,
        "comment": stored + b"x" * 70_000,
        "nested": zip_bytes({"a.zip": stored}),
    }.items():
        yield _file(folder, f"zip-{name}", "model.keras", data)
    yield _file(folder, "zip-22-bytes", "model.keras", b"PK\5\6" + bytes(18))
    yield _file(folder, "zip-22-bytes-lying", "model.keras", b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 9, 9, 20, 0, 0))
    yield _file(folder, "zip-local-lies", "model.keras", stored.replace(b"config.json", b"c0nfig.json", 1))


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _header(descr: bytes, shape: str) -> bytes:
    text = b"{'descr': '%b', 'fortran_order': False, 'shape': %b, }" % (descr, shape.encode())
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text


def lying_hdf5(folder: Path) -> Iterator[Case]:
    """Yield HDF5 files with links out, loops, absurd sizes and types that are no numbers."""

    def h5(fill: Callable[[Any], None], **options: Any) -> bytes:
        buffer = io.BytesIO()
        with h5py.File(buffer, "w", **options) as file:
            file["layers/dense/vars/0"] = B
            fill(file)
        return buffer.getvalue()

    def external_link(file: Any) -> None:
        file["layers/out"] = h5py.ExternalLink("/etc/hostname", "/")

    def soft_loop(file: Any) -> None:
        file["layers/a"], file["layers/b"] = h5py.SoftLink("/layers/b"), h5py.SoftLink("/layers/a")

    def hard_loop(file: Any) -> None:
        file["layers/dense/loop"] = file["layers"]

    def external_data(file: Any) -> None:
        file.create_dataset("layers/out", (4,), "u1", external=[("/etc/hostname", 0, 4)])

    def huge(file: Any) -> None:
        file.create_dataset("layers/huge", (1 << 45,), "f4", chunks=(1024,))

    def bomb(file: Any) -> None:
        file.create_dataset("layers/bomb", data=np.zeros(100_000_000, "u1"), chunks=(1_000_000,), compression="gzip")

    def compound(file: Any) -> None:
        file["layers/compound"] = np.zeros(2, [("a", "f4"), ("b", "i8")])

    def deep(file: Any) -> None:
        file["/".join(["layers"] + ["d"] * 2000)] = B

    def many(file: Any) -> None:
        group = file.create_group("layers/many")
        for number in range(3000):
            group.create_group(str(number))

    def references(file: Any) -> None:
        file.create_dataset("layers/reference", data=np.array([file["layers"].ref], dtype=h5py.ref_dtype))

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout(shape=(4,), dtype="u1")
        layout[:] = h5py.VirtualSource("/etc/hostname", "x", shape=(4,))
        file.create_virtual_dataset("layers/virtual", layout)

    for fill in (external_link, soft_loop, external_data, huge, compound, deep, references, virtual):
        name = f"hdf5-{fill.__name__.replace('_', '-')}"
        yield _file(
            folder, name, "model.weights.h5", h5(fill), must_fail=fill in (external_link, external_data, virtual)
        )
    for fill in (hard_loop, bomb, many):
        yield _file(folder, f"hdf5-{fill.__name__.replace('_', '-')}", "model.weights.h5", h5(fill), must_fail=False)
    yield _file(folder, "hdf5-latest", "model.weights.h5", h5(hard_loop, libver="latest"), must_fail=False)
    yield _file(folder, "hdf5-signature-alone", "model.h5", b"\x89HDF\r\n\x1a\n" + bytes(100))
    yield _file(folder, "hdf5-cut-inside", "model.h5", weights_h5_bytes()[:900])
