"""HDF5 files that are damaged or made to attack their reader."""

from __future__ import annotations

import struct
import subprocess
import sys

import h5py
import numpy as np
import pytest
from keras_files import fill_model

from tfthaw.errors import (
    FormatError,
    LimitError,
    MissingDependencyError,
    NotFoundError,
    TruncatedError,
    UnsafePathError,
    UnsupportedError,
)
from tfthaw.formats.keras_h5 import read_keras_h5
from tfthaw.limits import Limits


class TestUnsafe:
    def test_external_link(self, make):
        path = make(lambda file: file.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/x")))
        with pytest.raises(UnsafePathError, match="external link"):
            read_keras_h5(path)

    def test_external_storage(self, make, tmp_path):
        secret = tmp_path / "secret"
        secret.write_bytes(b"12345678")
        path = make(lambda file: file.create_dataset("x", (8,), "u1", external=[(str(secret), 0, 8)]))
        with pytest.raises(UnsafePathError, match="external storage"):
            read_keras_h5(path)

    def test_virtual_dataset(self, make):
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
        with pytest.raises(UnsafePathError, match="virtual"):
            read_keras_h5(make(lambda file: file.create_virtual_dataset("x", layout)))

    def test_soft_links(self, make):
        def fill(file):
            file["a/x"] = np.arange(3)
            file["a/near"] = h5py.SoftLink("x")
            file["far"] = h5py.SoftLink("/a/../a/x")

        tensors = read_keras_h5(make(fill)).tensors
        assert tensors["a/near"] is tensors["far"] is tensors["a/x"]
        for target in ("/nowhere", "../../etc/passwd", "/"):
            with pytest.raises(UnsafePathError, match="soft link"):
                read_keras_h5(make(lambda file, target=target: file.__setitem__("x", h5py.SoftLink(target))))

    def test_groups_in_a_circle(self, make):
        def fill(file):
            file["a/b"] = np.zeros(1)
            file["a/up"] = file["a"]

        with pytest.raises(FormatError, match="two ways"):
            read_keras_h5(make(fill))

    def test_a_dataset_with_two_names(self, make):
        def fill(file):
            file["x"] = np.arange(2)
            file["y"] = file["x"]

        assert list(read_keras_h5(make(fill)).tensors) == ["x", "y"]

    def test_depth(self, make):
        path = make(lambda file: file.__setitem__("g/" * 101 + "x", 1))
        with pytest.raises(LimitError, match="nested deeper than 100"):
            read_keras_h5(path)
        assert len(read_keras_h5(path, Limits(max_depth=200)).tensors) == 1


class TestDamaged:
    @pytest.mark.parametrize("content", [b"", b"x" * 3000, b"\x89HDF\r\n\x1a\n" + b"\0" * 3, b"PK\3\4" + b"\0" * 600])
    def test_no_hdf5(self, tmp_path, content):
        path = tmp_path / "x.h5"
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"no HDF5 signature|refuses"):
            read_keras_h5(str(path))

    def test_no_file(self, tmp_path):
        with pytest.raises(NotFoundError):
            read_keras_h5(str(tmp_path / "x.h5"))

    def test_no_h5py(self, make, monkeypatch):
        path = make(fill_model)
        monkeypatch.setitem(sys.modules, "h5py", None)
        with pytest.raises(MissingDependencyError, match=r"tfthaw\[keras\]"):
            read_keras_h5(path)

    def test_other_sizes_of_addresses(self, tmp_path):
        path = tmp_path / "x.h5"
        plan = h5py.h5p.create(h5py.h5p.FILE_CREATE)
        plan.set_sizes(4, 4)
        h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC, fcpl=plan).close()
        with pytest.raises(UnsupportedError, match="4 and 4 bytes"):
            read_keras_h5(str(path))

    @pytest.mark.parametrize("config", ["{", "[]", "[" * 100_000, "1" * 5000])
    def test_config_is_no_json(self, make, config):
        with pytest.raises(FormatError, match="model_config"):
            read_keras_h5(make(lambda file: file.attrs.create("model_config", config)))

    def test_config_is_too_long(self, make):
        with pytest.raises(LimitError, match="characters"):
            read_keras_h5(make(fill_model), Limits(max_block_bytes=5))

    def test_config_is_a_number(self, make):
        with pytest.raises(FormatError, match="expected text"):
            read_keras_h5(make(lambda file: file.attrs.create("model_config", 7)))

    def test_names_of_what_is_not_there(self, make):
        with pytest.raises(FormatError, match="layer_names names"):
            read_keras_h5(make(lambda file: file.attrs.create("layer_names", [b"gone"])))

        def fill(file):
            file.attrs["layer_names"] = [b"d"]
            file.create_group("d").attrs["weight_names"] = [b"gone"]

        with pytest.raises(FormatError, match="weight_names names 'd/gone'"):
            read_keras_h5(make(fill))

    def test_a_bomb(self, make):
        def fill(file):
            file.create_dataset("x", (1 << 40,), "f4", chunks=(1 << 20,), compression="gzip")

        with pytest.raises(LimitError, match="claims 4398046511104 bytes"):
            read_keras_h5(make(fill))

    def test_a_chunk_larger_than_its_storage(self, make):
        def fill(file):
            file.create_dataset("x", (4,), "f4", chunks=(1 << 28,), maxshape=(None,), compression="gzip")

        with pytest.raises(LimitError, match="one of its chunks claims"):
            read_keras_h5(make(fill))

    def test_limits(self, make):
        with pytest.raises(LimitError, match="claims 24 bytes, at most 12"):
            read_keras_h5(make(fill_model), Limits(max_tensor_bytes=12))

    def test_fletcher32_sees_a_flipped_bit(self, make, tmp_path):
        values = np.full(64, 1.5)
        path = make(lambda file: file.create_dataset("x", data=values, chunks=(64,), fletcher32=True))
        content = bytearray((tmp_path / "x.h5").read_bytes())
        content[content.index(values.tobytes()) + 5] ^= 1
        (tmp_path / "x.h5").write_bytes(content)
        tensor = read_keras_h5(path).tensors["x"]
        with pytest.raises(FormatError, match="HDF5 refuses it"):
            tensor.numpy()
        with pytest.raises(FormatError, match="HDF5 refuses it"):
            list(tensor.chunks())

    @pytest.mark.parametrize("where", ["attribute", "dataset"])
    @pytest.mark.parametrize("options", [{}, {"libver": "latest"}, {"userblock_size": 512}])
    def test_a_string_longer_than_the_file(self, make, tmp_path, where, options):
        def fill(file):
            file.attrs["keras_version"] = "unusual"
            file.create_dataset("x", data=["different"])

        path = make(fill, **options)
        content = bytearray((tmp_path / "x.h5").read_bytes())
        heap = content.index(b"GCOL") - options.get("userblock_size", 0)
        text = {"attribute": "unusual", "dataset": "different"}[where]
        at = content.index(struct.pack("<IQ", len(text), heap))
        content[at : at + 4] = b"\xf0\xff\xff\xff"
        if "libver" in options:
            content = rechecked(content)
        (tmp_path / "x.h5").write_bytes(content)
        with pytest.raises(LimitError, match="claim 4294967280 bytes"):
            read_keras_h5(path).tensors["x"].numpy()

    def test_a_chunk_too_short_for_its_checksum(self, make, tmp_path):
        options = {"chunks": (8,), "compression": "gzip", "fletcher32": True}
        path = make(lambda file: file.create_dataset("x", data=np.zeros(16), **options))
        with h5py.File(path) as file:
            size = file["x"].id.get_chunk_info(1).size
        content = bytearray((tmp_path / "x.h5").read_bytes())
        tree = content.index(b"TREE\1")
        at = content.index(struct.pack("<IIQ", size, 0, 8), tree)  # size, filters skipped, first index
        content[at : at + 4] = bytes(4)
        (tmp_path / "x.h5").write_bytes(content)
        with pytest.raises(FormatError, match=r"chunk at \[8\] claims 0 bytes"):
            read_keras_h5(path).tensors["x"].numpy()

    def test_a_heap_without_end(self, make, tmp_path):
        path = make(fill_model)
        content = bytearray((tmp_path / "x.h5").read_bytes())
        heap = content.index(b"GCOL")
        content[heap + 16 : heap + 32] = bytes(16)
        (tmp_path / "x.h5").write_bytes(content)
        with pytest.raises(FormatError, match="heap"):
            read_keras_h5(path)

    def test_every_twentieth_cut(self, make, tmp_path):
        path = make(fill_model)
        content = (tmp_path / "x.h5").read_bytes()
        for length in range(0, len(content) - 1, len(content) // 20):
            (tmp_path / "x.h5").write_bytes(content[:length])
            with pytest.raises(FormatError):
                read_keras_h5(path)
        (tmp_path / "x.h5").write_bytes(content[:-1])
        with pytest.raises(TruncatedError):
            read_keras_h5(path)


def rechecked(content):
    """Return an HDF5 file whose version 2 object headers have the checksum of their content again."""
    content = bytearray(content)
    start = content.find(b"OHDR")
    while start >= 0:
        flags = content[start + 5]
        width = 1 << (flags & 3)
        at = start + 6 + 16 * (flags >> 5 & 1) + 4 * (flags >> 4 & 1)
        end = at + width + int.from_bytes(content[at : at + width], "little")
        content[end : end + 4] = lookup3(bytes(content[start:end])).to_bytes(4, "little")
        start = content.find(b"OHDR", start + 4)
    return content


def lookup3(data):
    """Return Bob Jenkins' lookup3 hash, HDF5's checksum of metadata."""
    mask = 0xFFFFFFFF

    def rotate(value, by):
        return (value << by | value >> (32 - by)) & mask

    a = b = c = (0xDEADBEEF + len(data)) & mask
    position = 0
    while len(data) - position > 12:
        x, y, z = struct.unpack_from("<III", data, position)
        a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
        for by in (4, 6, 8, 16, 19, 4):
            a = ((a - c) & mask) ^ rotate(c, by)
            c = (c + b) & mask
            a, b, c = b, c, a
        position += 12
    if position < len(data):
        x, y, z = struct.unpack("<III", data[position:].ljust(12, b"\0"))
        a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
        for by in (14, 11, 25, 16, 4, 14, 24):
            c = ((c ^ b) - rotate(b, by)) & mask
            a, b, c = b, c, a
        a, b, c = c, a, b
    return c


FUZZ = """
import random, sys
from tfthaw.errors import TfthawError
from tfthaw.formats.keras_h5 import read_keras_h5
content, path = open(sys.argv[1], "rb").read(), sys.argv[1] + ".damaged"
for seed in range(150):
    choice, damaged = random.Random(seed), bytearray(content)
    for _ in range(choice.choice([1, 2, 6])):
        at = choice.randrange(len(damaged))
        damaged[at : at + 8] = choice.choice([
            bytes([damaged[at] ^ 1 << choice.randrange(8)]) + damaged[at + 1 : at + 8], b"\\xff" * 8, bytes(8)])
    with open(path, "wb") as file:
        file.write(damaged)
    try:
        for tensor in read_keras_h5(path).tensors.values():
            tensor.numpy()
    except TfthawError:
        pass
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}])
def test_mutations_end_in_our_errors_alone(make, options):
    """In a process of its own: HDF5 is C, and what it does wrong may be no exception."""

    def fill(file):
        fill_model(file)
        file.create_dataset("packed", data=np.arange(2000.0), chunks=(100,), compression="gzip", fletcher32=True)
        file["text"] = ["a", "bb"]

    done = subprocess.run(
        [sys.executable, "-c", FUZZ, make(fill, **options)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.split()[1]) < 200 << 10  # KiB
