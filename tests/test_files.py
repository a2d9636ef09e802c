"""Reading ranges of files, and copying them."""

import errno
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfthaw import _files
from tfthaw._files import FileSlice, SourceFile, human_bytes, resolve_inside
from tfthaw.errors import FormatError, NotFoundError, TfthawError, TruncatedError, UnsafePathError

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "weird [200] *é.bin"
    path.write_bytes(CONTENT)
    return path


def left_over(folder):
    return sorted(entry.name for entry in folder.iterdir())


class TestSourceFile:
    def test_reads_ranges(self, path):
        with SourceFile(path) as file:
            assert file.size == len(CONTENT)
            assert file.read(3, 5) == CONTENT[3:8]
            assert file.view(3, 5).tobytes() == CONTENT[3:8]
            assert file.view().tobytes() == CONTENT
            assert file.view(len(CONTENT), 0).size == 0
            assert file.slice(10).length == len(CONTENT) - 10

    def test_views_are_read_only_and_outlive_the_file(self, path):
        with SourceFile(path) as file:
            view = file.view(0, 4)
        assert view.tobytes() == CONTENT[:4]
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1

    @pytest.mark.parametrize(("offset", "length"), [(0, 10241), (10240, 1), (-1, 4), (5, -1), (1 << 70, 1)])
    def test_ranges_outside_are_refused(self, path, offset, length):
        with SourceFile(path) as file:
            for read in (file.read, file.view, file.slice):
                with pytest.raises(TruncatedError, match=r"the file has 10240; the file was cut"):
                    read(offset, length)

    def test_a_file_that_shrinks_while_it_is_read(self, path):
        with SourceFile(path) as file:
            os.truncate(path, 100)
            with pytest.raises(TruncatedError, match="the file ends at 100"):
                file.read(90, 20)

    def test_missing(self, tmp_path):
        with pytest.raises(NotFoundError, match="there is no such file") as caught:
            SourceFile(tmp_path / "none")
        assert caught.value.path == str(tmp_path / "none")
        assert isinstance(caught.value.__cause__, FileNotFoundError)

    def test_directories_and_pipes(self, tmp_path):
        with pytest.raises(FormatError, match="expected a regular file, found a directory"):
            SourceFile(tmp_path)
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(FormatError, match="found a pipe or a device"):
            SourceFile(tmp_path / "pipe")

    def test_an_unreadable_file_is_no_foreign_error(self, path, monkeypatch):
        def refuse(*_):
            raise OSError(errno.EIO, "Input/output error")

        file = SourceFile(path)
        monkeypatch.setattr(os, "pread", refuse)
        monkeypatch.setattr(os, "preadv", refuse)
        with pytest.raises(TfthawError, match="cannot read it: Input/output error"):
            file.read(0, 4)
        with pytest.raises(TfthawError, match="cannot read it: Input/output error"):
            file.read_into(np.empty(4, np.uint8), 0)

    def test_closing_twice_is_harmless(self, path):
        file = SourceFile(path)
        file.close()
        file.close()


@settings(max_examples=40, deadline=None)
@given(start=st.integers(0, 300), length=st.integers(0, 300), step=st.integers(1, 400))
def test_chunks_make_up_the_slice(tmp_path_factory, start, length, step):
    path = tmp_path_factory.getbasetemp() / "chunks.bin"
    if not path.exists():
        path.write_bytes(CONTENT)
    part = SourceFile(path).slice(start, length)
    pieces = [bytes(chunk) for chunk in part.chunks(step)]
    assert b"".join(pieces) == CONTENT[start : start + length] == part.view().tobytes()
    assert all(len(piece) <= step for piece in pieces)
    assert part.nbytes == length


class TestResolveInside:
    def test_plain_paths(self, tmp_path):
        assert resolve_inside(tmp_path, "assets/vocab.txt") == tmp_path / "assets" / "vocab.txt"

    @pytest.mark.parametrize("relative", ["/etc/passwd", "../x", "a/../../x", "a\0b", "a\\..\\b"])
    def test_paths_that_leave(self, tmp_path, relative):
        with pytest.raises(UnsafePathError, match="leads out of the artifact") as caught:
            resolve_inside(tmp_path, relative, where="asset 'x'")
        assert caught.value.where == "asset 'x'"

    def test_links_that_leave(self, tmp_path):
        (tmp_path / "inside").mkdir()
        (tmp_path / "inside" / "link").symlink_to(tmp_path)
        with pytest.raises(UnsafePathError):
            resolve_inside(tmp_path / "inside", "link/x")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1024, "1.0 KiB"), (3 << 30, "3.0 GiB"), (5 << 50, "5120.0 TiB")]
)
def test_human_bytes(count, text):
    assert human_bytes(count) == text


def test_a_slice_is_a_value(path):
    file = SourceFile(path)
    assert FileSlice(file, 1, 2) == file.slice(1, 2)


def test_slices_cost_no_memory(path):
    """A chunk is a part of one buffer that is used again."""
    addresses = {chunk.__array_interface__["data"][0] for chunk in SourceFile(path).slice().chunks(1000)}
    assert len(addresses) == 1
    assert np.ceil(len(CONTENT) / 1000) > 1
    assert 64 << 10 <= _files.CHUNK_BYTES <= 4 << 20


@pytest.mark.parametrize("size", [0, 1000, (1 << 20) + 7])
@pytest.mark.parametrize("refuses", [False, True])
def test_copying_gives_the_same_bytes_with_and_without_the_kernel(tmp_path, monkeypatch, size, refuses):
    content = np.random.default_rng(0).integers(0, 256, size + 10, np.uint8).tobytes()
    (tmp_path / "source").write_bytes(content)
    if refuses:
        monkeypatch.setattr(os, "copy_file_range", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "other disk")))
    done = []
    with open(tmp_path / "copy", "wb") as file:
        file.write(b"before")
        assert SourceFile(tmp_path / "source").slice(3, size).copy_to(file, done.append) == size
        file.write(b"after")
    assert (tmp_path / "copy").read_bytes() == b"before" + content[3 : 3 + size] + b"after"
    assert sum(done) == size
