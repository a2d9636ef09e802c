"""Damage that knows no format: cuts, lost ends, flipped bits, the wrong file in the place of the right one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from judge import Case
from seeds import OUTPUTS

from tfthaw.formats.wire_check import LENGTH, WireError, fields

# what must never go unnoticed, since a checksum or a count holds it
GUARDED = {"checkpoint", "checkpoint-v1", "safetensors", "npz", "npz-deflated", "keras-zip"}
FORMATS = {
    "meta-graph": ("frozen-graph", "safetensors"),
    "saved-model": ("frozen-graph", "checkpoint"),
    "frozen-graph": ("frozen-graph",),
    "graph-text": ("saved-model",),
    "graph-def": ("frozen-graph",),
}


def options_of(kind: str, seeds: dict[str, str]) -> tuple[str, ...]:
    """Return the options that a conversion of a seed into a graph format needs."""
    if kind in ("graph-def", "library"):
        return (*OUTPUTS, "--checkpoint", seeds["checkpoint"])
    return OUTPUTS if kind in ("meta-graph", "frozen-graph", "graph-text") else ()


def case_of(kind: str, name: str, path: Path | str, seeds: dict[str, str], *, must_fail: bool = False) -> Case:
    """Return the case of a damaged seed."""
    formats = FORMATS.get(kind, ("checkpoint", "npz"))
    return Case(name, str(path), must_fail, options_of(kind, seeds), formats)


def files_of(kind: str, path: str) -> list[Path]:
    """Return the files of a seed that can be damaged."""
    root = Path(path)
    if kind == "checkpoint":
        return [Path(f"{path}.index"), Path(f"{path}.data-00000-of-00001")]
    if root.is_dir():
        return [item for item in sorted(root.rglob("*")) if item.is_file()]
    return [root]


def copy_of(path: str, folder: Path) -> Path:
    """Copy the folder that a seed lies in and return the seed's path in the copy."""
    source = Path(path)
    shutil.copytree(source.parent, folder)
    return folder / source.name


def edges(data: bytes) -> list[int]:
    """Return where structures of any format end: first and last bytes, footers, and the fields of a message."""
    size = len(data)
    found = {1, 7, 8, size // 3, size // 2, size - 49, size - 48, size - 9, size - 8, size - 1}
    view = memoryview(data)
    try:
        for _, wire, start, end in fields(view, 0, size, most=6):
            found |= {start, end}
            if wire == LENGTH and end - start > 2:
                found |= {inner for _, _, inner, _ in fields(view, start, end, most=2)}
    except (WireError, IndexError):
        pass
    return sorted(edge for edge in found if 0 < edge < size)


def damage(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield ways to damage a file, with their names."""
    yield "empty", b""
    for edge in edges(data):
        yield f"cut-at-{edge}", data[:edge]
    yield "first-8-zero", bytes(8) + data[8:]
    yield "last-8-zero", data[:-8] + bytes(8)
    yield "first-4-ff", b"\xff" * 4 + data[4:]
    yield "without-first-byte", data[1:]
    yield "twice", data + data
    step = max(1, len(data) // 5)
    for place in range(step // 2, len(data), step):
        yield f"bit-flipped-at-{place}", data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def damaged_seeds(folder: Path, seeds: dict[str, str]) -> Iterator[Case]:
    """Yield every seed with each of its files damaged in every way."""
    for kind, seed in seeds.items():
        for number, file in enumerate(files_of(kind, seed)):
            data = file.read_bytes()
            for way, damaged in damage(data):
                name = f"{kind}-{number}-{way}"
                path = copy_of(seed, folder / name)
                target = folder / name / file.relative_to(Path(seed).parent)
                target.write_bytes(damaged)
                guarded = kind in GUARDED and way.startswith(("cut", "empty"))
                yield case_of(kind, name, path, seeds, must_fail=guarded)


def wrong_files(folder: Path, seeds: dict[str, str]) -> Iterator[Case]:
    """Yield each seed's bytes under the name of another format, and files without or beside their companions."""
    samples = {kind: files_of(kind, seed)[0] for kind, seed in seeds.items()}
    names = {
        "checkpoint": "model.index",
        "meta-graph": "model.meta",
        "frozen-graph": "graph.pb",
        "graph-text": "graph.pbtxt",
        "keras-h5": "model.h5",
        "keras-zip": "model.keras",
        "npz": "model.npz",
        "safetensors": "model.safetensors",
    }
    for kind, sample in samples.items():
        for other, name in names.items():
            if other != kind and (len(kind) + len(other)) % 3 == 0:  # a third of the pairs meets every format twice
                place = folder / f"{kind}-named-{name}" / name
                place.parent.mkdir()
                shutil.copy(sample, place)
                yield case_of(other, place.parent.name, place, seeds)
    prefix = seeds["checkpoint"]
    for name, pairs, must_fail in (
        ("data-without-index", [(".data-00000-of-00001", ".data-00000-of-00001")], True),
        ("index-without-data", [(".index", ".index")], True),
        ("data-as-index", [(".data-00000-of-00001", ".index"), (".data-00000-of-00001", ".data-00000-of-00001")], True),
        ("index-as-data", [(".index", ".index"), (".index", ".data-00000-of-00001")], True),
        ("one-shard-of-two", [(".index", ".index"), (".data-00000-of-00001", ".data-00000-of-00002")], True),
    ):
        (folder / name).mkdir()
        for source, target in pairs:
            shutil.copy(prefix + source, folder / name / f"model{target}")
        yield case_of("checkpoint", name, folder / name / "model", seeds, must_fail=must_fail)
    saved = copy_of(seeds["saved-model"], folder / "saved-model-without-variables")
    shutil.rmtree(saved / "variables")
    yield case_of("saved-model", "saved-model-without-variables", saved, seeds, must_fail=True)
    saved = copy_of(seeds["saved-model"], folder / "saved-model-without-message")
    (saved / "saved_model.pb").unlink()
    yield case_of("saved-model", "saved-model-without-message", saved, seeds, must_fail=False)
