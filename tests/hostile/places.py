"""Things that are no files, and paths that lead elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from byte_damage import case_of, copy_of
from judge import Case

from tfthaw import proto


def odd_places(folder: Path, seeds: dict[str, str]) -> Iterator[Case]:
    """Yield directories, pipes, link loops, sockets' kin and paths that do not exist."""

    def case(name: str, *parts: str) -> Case:
        return Case(name, str(folder.joinpath(name, *parts)), must_fail=True)

    for name in (
        "empty-directory",
        "pipe",
        "pipe-as-index",
        "pipe-as-shard",
        "pipe-as-message",
        "link-loop",
        "nothing",
        "directory-as-index",
        "directory-as-shard",
        "state-loop",
        "state-elsewhere",
        "link-to-nothing",
        "device",
    ):
        (folder / name).mkdir()
    (folder / "empty-directory" / "inner").mkdir()
    yield case("empty-directory", "inner")
    os.mkfifo(folder / "pipe" / "model.pb")
    yield case("pipe", "model.pb")
    for name, suffix in (("pipe-as-index", ".index"), ("pipe-as-shard", ".data-00000-of-00001")):
        for item in (".index", ".data-00000-of-00001"):
            shutil.copy(seeds["checkpoint"] + item, folder / name / f"model{item}")
        (folder / name / f"model{suffix}").unlink()
        os.mkfifo(folder / name / f"model{suffix}")
        yield case(name, "model")
    (folder / "pipe-as-message" / "saved").mkdir()
    os.mkfifo(folder / "pipe-as-message" / "saved" / "saved_model.pb")
    yield case("pipe-as-message", "saved")
    (folder / "link-loop" / "a").symlink_to("b")
    (folder / "link-loop" / "b").symlink_to("a")
    yield case("link-loop", "a")
    yield case("nothing", "at", "all")
    yield case("nothing", "x" * 300)
    (folder / "directory-as-index" / "model.index").mkdir()
    yield case("directory-as-index", "model")
    shutil.copy(seeds["checkpoint"] + ".index", folder / "directory-as-shard" / "model.index")
    (folder / "directory-as-shard" / "model.data-00000-of-00001").mkdir()
    yield case("directory-as-shard", "model")
    (folder / "state-loop" / "checkpoint").write_text('model_checkpoint_path: "checkpoint"\n')
    yield case("state-loop", "checkpoint")
    (folder / "state-elsewhere" / "checkpoint").write_text('model_checkpoint_path: "../../../../../etc/passwd"\n')
    yield case("state-elsewhere", "checkpoint")
    (folder / "link-to-nothing" / "model.pb").symlink_to("gone.pb")
    yield case("link-to-nothing", "model.pb")
    (folder / "device" / "zero").symlink_to("/dev/zero")
    yield case("device", "zero")


def looping_folders(folder: Path, seeds: dict[str, str]) -> Iterator[Case]:
    """Yield SavedModels whose folders hold links to themselves, which must not be followed for ever."""
    saved = copy_of(seeds["saved-model"], folder / "saved-model-in-itself")
    (saved / "assets").mkdir(exist_ok=True)
    (saved / "assets" / "loop").symlink_to("..")
    yield case_of("saved-model", "saved-model-in-itself", saved, seeds)


def escaping_assets(folder: Path, seeds: dict[str, str]) -> Iterator[Case]:
    """Yield SavedModels whose assets lie outside of them."""
    for name, written in (
        ("asset-up", "../../../../etc/hostname"),
        ("asset-absolute", "/etc/hostname"),
        ("asset-nul", "a\0b"),
        ("asset-link", "link"),
    ):
        saved = copy_of(seeds["saved-model"], folder / name)
        message = proto.SavedModel.FromString((saved / "saved_model.pb").read_bytes())
        meta = message.meta_graphs[0]
        meta.asset_file_def.add(filename=written).tensor_info.name = "asset:0"
        node = meta.graph_def.node.add(name="asset", op="Const")
        node.attr["dtype"].type = 7
        node.attr["value"].tensor.dtype = 7
        node.attr["value"].tensor.string_val.append(written.encode())
        meta.signature_def["serving_default"].outputs["asset"].name = "asset:0"
        meta.signature_def["serving_default"].outputs["asset"].dtype = 7
        (saved / "saved_model.pb").write_bytes(message.SerializeToString())
        (saved / "assets").mkdir(exist_ok=True)
        (saved / "assets" / "link").symlink_to("/etc/hostname")
        yield Case(name, str(saved), formats=("saved-model", "frozen-graph"), must_fail=False)


def unreadable(folder: Path, seeds: dict[str, str]) -> Iterator[Case]:
    """Yield a file that this user may not read; to the super-user it is as readable as any."""
    path = copy_of(seeds["frozen-graph"], folder / "unreadable")
    path.chmod(0)
    yield case_of("frozen-graph", "unreadable", path, seeds, must_fail=os.geteuid() != 0)
