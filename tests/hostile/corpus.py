"""The hostile corpus: every way to be wrong, for every format that tfthaw reads."""

from __future__ import annotations

from pathlib import Path

from byte_damage import damaged_seeds, wrong_files
from graph_lies import lying_graphs, lying_messages
from judge import Case
from library_lies import lying_libraries
from places import escaping_assets, looping_folders, odd_places, unreadable
from tensor_lies import lying_archives, lying_hdf5, lying_indexes, lying_safetensors


def make_corpus(directory: Path, seeds: dict[str, str]) -> dict[str, list[Case]]:
    """Write the hostile corpus.

    Args:
        directory: An empty directory; each case gets a folder of its own in it.
        seeds: Valid artifacts, as `write_seeds` gives them.

    Returns:
        The cases, by what kind of wrong they are.
    """

    def each(name: str) -> Path:
        place = directory / name
        place.mkdir(parents=True)
        return place

    return {
        "damage": list(damaged_seeds(each("damage"), seeds)),
        "wrong-files": list(wrong_files(each("wrong-files"), seeds)),
        "places": list(odd_places(each("places"), seeds)),
        "folders": list(looping_folders(each("folders"), seeds)),
        "assets": list(escaping_assets(each("assets"), seeds)),
        "unreadable": list(unreadable(each("unreadable"), seeds)),
        "graphs": list(lying_graphs(each("graphs"))),
        "libraries": list(lying_libraries(each("libraries"))),
        "messages": list(lying_messages(each("messages"))),
        "indexes": list(lying_indexes(each("indexes"))),
        "safetensors": list(lying_safetensors(each("safetensors"))),
        "archives": list(lying_archives(each("archives"))),
        "hdf5": list(lying_hdf5(each("hdf5"))),
    }
