"""Make the table of TensorFlow's ops: src/tfthaw/ir/op_history.json.gz.

Run it when a new TensorFlow is released, after adding its line to `RELEASES`:

    python tools/make_op_history.py --cache ~/.cache/tfthaw-op-history

It takes one wheel of every minor release from PyPI (one at a time on disk, deleted after use), and asks its op
registry for every OpDef; then it folds all of them into one table. Nothing of TensorFlow's Python is run: the wheel's
shared libraries are loaded into a process of their own with `dlopen`, which is what makes ops register, and
`TF_GetAllOpList` of TensorFlow's C API returns them. So a wheel for any Python will do; symbols of another Python's ABI
that the libraries want at load time are given to them by a stub that `cc` compiles.

The wheels' generated wrappers (`gen_*_ops.py`) are read too, as text: their place says which ops are of `contrib`, and
up to TensorFlow 2.0 they end in the OpDefs that they wrap. So the ops are known that only the GPU builds of
TensorFlow 1 have (`tensorflow-gpu`), which do not load without CUDA. From 2.1 on one wheel serves both. The headers in
the wheels state which version of GraphDef a release writes and which element types it knows.

It needs Linux on x86-64, pip, `cc` and tfthaw. What the registries said is kept in the cache directory, so a second
run fetches only what is new; a full run takes some ten minutes and 4 GB of disk. tfthaw itself never needs this tool:
the table is shipped.

Source: op_def.proto and c_api.h of TensorFlow (`TF_GetAllOpList`, `TF_Buffer`), and the wheels themselves.
"""

from __future__ import annotations

import argparse
import ast
import ctypes
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import text_format

from tfthaw import proto

TABLE = Path(__file__).resolve().parent.parent / "src" / "tfthaw" / "ir" / "op_history.json.gz"


OpList = proto.message_class("tensorflow.OpList")


class Release(NamedTuple):
    """The wheel that stands for a minor release: the last patch, in the build that registers most ops."""

    minor: str
    version: str
    python: str


RELEASES = [
    Release("0.12", "0.12.1", "3.5"), Release("1.0", "1.0.1", "3.6"), Release("1.1", "1.1.0", "3.6"),
    Release("1.2", "1.2.1", "3.6"), Release("1.3", "1.3.0", "3.6"), Release("1.4", "1.4.1", "3.6"),
    Release("1.5", "1.5.1", "3.6"), Release("1.6", "1.6.0", "3.6"), Release("1.7", "1.7.1", "3.6"),
    Release("1.8", "1.8.0", "3.6"), Release("1.9", "1.9.0", "3.6"), Release("1.10", "1.10.1", "3.6"),
    Release("1.11", "1.11.0", "3.6"), Release("1.12", "1.12.3", "3.6"), Release("1.13", "1.13.2", "3.7"),
    Release("1.14", "1.14.0", "3.7"), Release("1.15", "1.15.5", "3.7"), Release("2.0", "2.0.4", "3.7"),
    Release("2.1", "2.1.4", "3.7"), Release("2.2", "2.2.3", "3.8"), Release("2.3", "2.3.4", "3.8"),
    Release("2.4", "2.4.4", "3.8"), Release("2.5", "2.5.3", "3.9"), Release("2.6", "2.6.5", "3.9"),
    Release("2.7", "2.7.4", "3.9"), Release("2.8", "2.8.4", "3.10"), Release("2.9", "2.9.3", "3.10"),
    Release("2.10", "2.10.1", "3.10"), Release("2.11", "2.11.1", "3.10"), Release("2.12", "2.12.1", "3.11"),
    Release("2.13", "2.13.1", "3.11"), Release("2.14", "2.14.1", "3.11"), Release("2.15", "2.15.1", "3.11"),
    Release("2.16", "2.16.2", "3.11"), Release("2.17", "2.17.1", "3.11"), Release("2.18", "2.18.1", "3.11"),
    Release("2.19", "2.19.1", "3.11"), Release("2.20", "2.20.0", "3.11"), Release("2.21", "2.21.0", "3.11"),
]  # fmt: skip

# The library that brings the core registry and its ops, and loads what it needs itself; the first is TensorFlow 0.12's.
CORE_LIBRARIES = ("python/_pywrap_tensorflow.so", "python/_pywrap_tensorflow_internal.so")
# Libraries with ops of their own that TensorFlow loads when a module is imported.
EXTRA_LIBRARIES = ("contrib/**/*.so", "compiler/**/*_ops.so", "compiler/tf2tensorrt/**/*.so",
                   "lite/experimental/**/*_op.so", "python/ops/*.so", "include/external/**/*_ops.so")  # fmt: skip
GENERATED = re.compile(r"/gen_\w+\.py$")
PLATFORMS = ("manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64", "manylinux_2_17_x86_64",
             "manylinux_2_27_x86_64")  # fmt: skip


# --- from a wheel to its OpDefs ---------------------------------------------------------------------------------------


def download(requirement: str, python: str, directory: Path) -> Path:
    """Download one wheel without its dependencies and return its path."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir", "--only-binary=:all:",
               "--python-version", python, "--implementation", "cp", "-d", str(directory)]  # fmt: skip
    for platform in PLATFORMS:
        command += ["--platform", platform]
    subprocess.run([*command, requirement], check=True)
    (wheel,) = directory.glob("*.whl")
    return wheel


def unpack(wheel: Path, directory: Path) -> Path:
    """Unpack a wheel's shared libraries and generated wrappers; return the folder of the package."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if GENERATED.search(name) or re.search(r"\.so(\.\d+)*$", name):
                archive.extract(name, directory)
    # Up to 1.14 and from 2.1 on the folder is `tensorflow`; in between `tensorflow_core`, beside a stub. Before 1.15 a
    # part of the package lies in `*.data/purelib`.
    folders = [found.parent.parent for found in directory.glob("**/python/_pywrap_tensorflow*.so")]
    return folders[0]


class _Buffer(ctypes.Structure):
    """TF_Buffer of TensorFlow's C API."""

    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p)]


def write_registered(package: Path, core_only: Path, everything: Path, skipped: list[str]) -> int:
    """Load the libraries under package and write what the registry holds; runs in a process of its own.

    Args:
        package: The folder of an unpacked TensorFlow.
        core_only: Where the serialized OpList goes that `import tensorflow` knows.
        everything: Where it goes again, once the libraries of contrib and the like are loaded too.
        skipped: Libraries to leave out.

    Returns:
        The exit status; what could not be loaded is named on stderr.
    """
    (core,) = (package / name for name in CORE_LIBRARIES if (package / name).exists())
    registry = ctypes.CDLL(str(core), mode=os.RTLD_LAZY | os.RTLD_GLOBAL)
    read = _read_registry if hasattr(registry, "TF_GetAllOpList") else _read_registry_of_0_12
    load = _load_extra if hasattr(registry, "TF_LoadLibrary") else _load_extra_of_0_12
    core_only.write_bytes(read(registry))
    for pattern in EXTRA_LIBRARIES:
        for path in sorted(package.glob(pattern)):
            if str(path) not in skipped:
                print(f"loading {path}", file=sys.stderr, flush=True)
                load(registry, path)
    everything.write_bytes(read(registry))
    os._exit(0)  # destructors of libraries that were loaded this way are not to be trusted


def _read_registry(library: ctypes.CDLL) -> bytes:
    """Return the serialized OpList of every op that is registered."""
    library.TF_GetAllOpList.restype = ctypes.POINTER(_Buffer)
    buffer = library.TF_GetAllOpList().contents
    return ctypes.string_at(buffer.data, buffer.length)


def _load_extra(library: ctypes.CDLL, path: Path) -> None:
    """Load a library with ops through TensorFlow, which forgives an op that is registered already."""
    library.TF_NewStatus.restype = ctypes.c_void_p
    library.TF_Message.restype = ctypes.c_char_p
    status = ctypes.c_void_p(library.TF_NewStatus())
    library.TF_LoadLibrary(str(path).encode(), status)
    if library.TF_GetCode(status):
        print(f"not loaded: {library.TF_Message(status).decode()}", file=sys.stderr)


def _load_extra_of_0_12(library: ctypes.CDLL, path: Path) -> None:
    """Load a library with ops into TensorFlow 0.12, which does not export its C API."""
    ctypes.CDLL(str(path), mode=os.RTLD_LAZY)


def _read_registry_of_0_12(library: ctypes.CDLL) -> bytes:
    """Do what TF_GetAllOpList does, by the C++ methods that TensorFlow 0.12 exports instead."""
    op_list = ctypes.create_string_buffer(4096)  # a C++ object of far fewer bytes
    library["_ZN10tensorflow6OpListC1Ev"](op_list)
    the_registry = library["_ZN10tensorflow10OpRegistry6GlobalEv"]
    the_registry.restype = ctypes.c_void_p
    library["_ZNK10tensorflow10OpRegistry6ExportEbPNS_6OpListE"](ctypes.c_void_p(the_registry()), True, op_list)
    size = library["_ZNK10tensorflow6OpList12ByteSizeLongEv"]
    size.restype = ctypes.c_size_t
    data = ctypes.create_string_buffer(size(op_list))
    library["_ZNK10tensorflow6OpList31SerializeWithCachedSizesToArrayEPh"](op_list, data)
    return data.raw


def registered(package: Path, scratch: Path) -> tuple[Any, Any]:
    """Return the OpLists of an unpacked TensorFlow: what it starts with, and with contrib and the like."""
    outputs = [scratch / "core.oplist", scratch / "everything.oplist"]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(package), "TF_CPP_MIN_LOG_LEVEL": "3"}
    missing: set[str] = set()
    skipped: list[str] = []
    while True:
        command = [sys.executable, __file__, "--load", str(package), *map(str, outputs), *skipped]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        errors = done.stderr.decode(errors="replace")
        wanted = set(re.findall(r"undefined symbol: (_?Py\w+)", errors)) - missing
        loading = re.findall(r"^loading (.*)", errors, re.M)
        if wanted:
            missing |= wanted
            environment["LD_PRELOAD"] = str(_stub(missing, scratch))
        elif done.returncode and loading:  # it took the process with it
            print(f"  left out: {loading[-1]}", file=sys.stderr)
            skipped.append(loading[-1])
        elif done.returncode:
            sys.exit(f"{package}: cannot be loaded:\n{errors}")
        else:
            break
    for line in re.findall(r"^not loaded: .*", errors, re.M):
        print(f"  {line}", file=sys.stderr)
    core_only, everything = (OpList.FromString(output.read_bytes()) for output in outputs)
    return core_only, everything


def _stub(symbols: set[str], scratch: Path) -> Path:
    """Compile a library that has these symbols, for libraries of another Python's ABI; nobody reads what they hold."""
    stub = scratch / f"stub{len(symbols)}.so"
    source = "".join(f"char {symbol}[65536];\n" for symbol in sorted(symbols))
    subprocess.run(["cc", "-x", "c", "-shared", "-fPIC", "-o", str(stub), "-"], input=source.encode(), check=True)
    return stub


def generated(directory: Path) -> tuple[dict[str, Any], set[str], set[str]]:
    """Read the generated wrappers below a directory.

    Returns:
        The OpDefs that they carry, by name (none from TensorFlow 2.1 on), and the names of
        those of the core and of `contrib`.
    """
    op_defs: dict[str, Any] = {}
    contrib: set[str] = set()
    core: set[str] = set()
    for path in sorted(directory.glob("**/gen_*.py")):
        found = re.search(r"^_op_def_lib = _InitOpDefLibrary\((b(?:'.*'|\".*\"))\)$", path.read_text(), re.M)
        carried = OpList.FromString(ast.literal_eval(found.group(1))) if found else None
        if carried is None:  # 0.12 and 1.0 carry text instead
            carried = _text_op_list(path.read_text())
        if carried is None:
            continue
        names = {op.name for op in carried.op}
        if "contrib" in path.parts:
            contrib |= names
        else:
            core |= names
        op_defs.update({op.name: op for op in carried.op})
    return op_defs, core, contrib - core


def _text_op_list(source: str) -> Any:
    """Return the OpList that an old generated wrapper carries in text format, or None."""
    found = re.search(r'^_InitOpDefLibrary\.op_list_ascii = """(.*?)"""', source, re.M | re.S)
    return text_format.Parse(found.group(1), OpList()) if found else None


def stated(wheel: Path) -> dict[str, Any]:
    """Return the version of GraphDef that a wheel's headers state, and the numbers of the element types they know."""
    with zipfile.ZipFile(wheel) as archive:
        (version, types) = (
            next(archive.read(name).decode() for name in archive.namelist() if name.endswith(header))
            for header in ("/include/tensorflow/core/public/version.h", "/include/tensorflow/core/framework/types.pb.h")
        )
    (graph_version,) = re.findall(r"^#define TF_GRAPH_DEF_VERSION (\d+)", version, re.M)
    numbers = {int(number) for number in re.findall(r"\bDT_\w+ = (\d+)", types)}
    return {"graph_version": int(graph_version), "dtypes": sorted(number for number in numbers if number < 100)}


def collect(release: Release, cache: Path) -> tuple[Any, set[str], dict[str, Any]]:
    """Return a release's OpList, its contrib ops and what its headers state, from the cache or from its wheels."""
    builds = [("tensorflow", _collect_registered)]
    if int(release.minor[0]) < 2:
        builds.append(("tensorflow-gpu", _collect_generated))
    found: dict[str, Any] = {}
    contrib: set[str] = set()
    facts = cache / f"tensorflow-{release.version}.json"
    for distribution, ask in builds:
        kept, kept_contrib = (cache / f"{distribution}-{release.version}{end}" for end in (".oplist", ".contrib"))
        if not kept_contrib.exists():
            print(f"{distribution} {release.version}", file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                wheel = download(f"{distribution}=={release.version}", release.python, Path(scratch))
                op_defs, names = ask(wheel, Path(scratch))
                if distribution == "tensorflow":
                    facts.write_text(json.dumps(stated(wheel)))
            kept.write_bytes(OpList(op=op_defs.values()).SerializeToString())
            kept_contrib.write_text("\n".join(sorted(names)))
        op_defs = {op.name: op for op in OpList.FromString(kept.read_bytes()).op}
        contrib |= set(kept_contrib.read_text().split()) - found.keys()
        found = op_defs | found
    return OpList(op=found.values()), contrib, json.loads(facts.read_text())


def _collect_registered(wheel: Path, scratch: Path) -> tuple[dict[str, Any], set[str]]:
    """Return the OpDefs that a wheel registers or carries as text, and the names of those of contrib."""
    package = unpack(wheel, scratch / "unpacked")
    core_only, everything = registered(package, scratch)
    carried, core, contrib = generated(scratch / "unpacked")
    found = {op.name: op for op in everything.op}
    if package.joinpath("contrib").exists():
        contrib |= found.keys() - {op.name for op in core_only.op} - core
    return carried | found, contrib


def _collect_generated(wheel: Path, scratch: Path) -> tuple[dict[str, Any], set[str]]:
    """Return the OpDefs that a wheel carries as text: for a build that cannot be loaded without a GPU's libraries."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch / "unpacked", [name for name in archive.namelist() if GENERATED.search(name)])
    carried, _, contrib = generated(scratch / "unpacked")
    return carried, contrib


# --- from OpDefs to the table -----------------------------------------------------------------------------------------


def fold(releases: list[tuple[Any, set[str]]]) -> list[str]:
    """Return the lines of the table, one an op, from the OpLists and the contrib ops of all releases, oldest first."""
    found: dict[str, dict[int, Any]] = {}
    for position, (op_list, _) in enumerate(releases):
        for op in op_list.op:
            found.setdefault(op.name, {})[position] = op
    lines = []
    for name, definitions in sorted(found.items()):
        newest = max(definitions)
        op = definitions[newest]
        record = [
            int(op.is_stateful),
            presence(position for position, (_, contrib) in enumerate(releases) if name in contrib),
            *arguments(op),
            fold_attrs(definitions),
            [op.deprecation.version, op.deprecation.explanation] if op.HasField("deprecation") else 0,
        ]
        earlier = earlier_arguments(definitions)
        text = json.dumps([*record, earlier] if earlier else record, separators=(",", ":"))
        lines.append(f"{name}\t{presence(definitions)}\t{text}")
    return lines


def fold_stated(stated_by_releases: list[dict[str, Any]]) -> str:
    """Return the line of the table that says which GraphDef every release writes, and since when dtypes are known."""
    since: dict[int, int] = {}
    for position, facts in enumerate(stated_by_releases):
        for number in facts["dtypes"]:
            since.setdefault(number, position)
    return json.dumps([[facts["graph_version"] for facts in stated_by_releases], sorted(since.items())])


def arguments(op: Any) -> tuple[list[str], list[str]]:
    """Return what an op takes and gives as the table spells it."""
    return [argument(arg) for arg in op.input_arg], [argument(arg) for arg in op.output_arg]


def earlier_arguments(definitions: dict[int, Any]) -> list[Any]:
    """Return what an op took and gave before it got those of its newest definition, each with the last version."""
    entries: list[Any] = []
    after = arguments(definitions[max(definitions)])
    for position in sorted(definitions, reverse=True):
        now = arguments(definitions[position])
        if now != after:
            entries.insert(0, [position, *now])
        after = now
    return entries


def presence(positions: Iterable[int]) -> int:
    """Return the number whose bits are these positions."""
    return sum(1 << position for position in positions)


def argument(arg: Any) -> str:
    """Return an ArgDef as the table spells it."""
    kind = f"@{arg.type_list_attr}" if arg.type_list_attr else arg.type_attr or str(arg.type)
    number = f"{arg.number_attr}*" if arg.number_attr else ""
    return f"{arg.name}:{'&' if arg.is_ref else ''}{number}{kind}"


def fold_attrs(definitions: dict[int, Any]) -> list[Any]:
    """Return the records of an op's attrs: those of its newest definition first, then those that it lost."""
    names: dict[str, None] = {}
    for position in sorted(definitions, reverse=True):
        names.update(dict.fromkeys(attr.name for attr in definitions[position].attr))
    records = []
    for name in names:
        held = {position: attr for position, op in definitions.items() for attr in op.attr if attr.name == name}
        types = {attr.type for attr in held.values()}
        assert len(types) == 1, f"attr {name} changed its type: {types}"
        (kind,) = types
        mask = presence(held)
        records.append([name, kind, 0 if mask == presence(definitions) else mask, defaults(held), allowed(held)])
    return records


def defaults(held: dict[int, Any]) -> list[Any]:
    """Return an attr's defaults as the table spells them: one entry for each version that changes it."""
    entries: list[Any] = []
    before: Any = None
    for position in sorted(held):
        attr = held[position]
        now = attr.default_value.SerializeToString(deterministic=True) if attr.HasField("default_value") else None
        if now != before:
            entries.append([position] if now is None else [position, encode(attr.default_value)])
        before = now
    return entries


def allowed(held: dict[int, Any]) -> list[Any]:
    """Return the allowed values as the table spells them: one entry for each version that changes them."""
    entries: list[Any] = []
    before: list[Any] = []
    for position in sorted(held):
        now = _allowed_in(held[position])
        if now != before:
            entries.append([position, now or 0])
        before = now
    return entries


def _allowed_in(attr: Any) -> list[Any]:
    values: list[Any] = encode(attr.allowed_values) if attr.HasField("allowed_values") else []
    return values


def encode(value: Any) -> Any:
    """Return an AttrValue as the table spells it; the attr's type says how to read it back."""
    kind = value.WhichOneof("value")
    if kind == "list":
        fields = value.list.ListFields()
        if not fields:
            return []
        ((field, items),) = fields
        if field.name in ("tensor", "func"):
            return value.SerializeToString().decode("latin-1")
        return [encode(type(value)(**{field.name: item})) for item in items]
    stored = getattr(value, kind)
    if kind == "s":
        return stored.decode("latin-1")
    if kind == "shape":
        return None if stored.unknown_rank else [dim.size for dim in stored.dim]
    if kind == "func" and not stored.attr:
        return stored.name
    return stored if kind in ("i", "f", "b", "type") else value.SerializeToString().decode("latin-1")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the table of TensorFlow's ops from the wheels on PyPI.")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "tfthaw-op-history")
    parser.add_argument("--load", nargs="+", help=argparse.SUPPRESS)  # what this tool calls itself with
    options = parser.parse_args()
    if options.load:
        package, core_only, everything, *skipped = options.load
        return write_registered(Path(package), Path(core_only), Path(everything), skipped)
    options.cache.mkdir(parents=True, exist_ok=True)
    collected = [collect(release, options.cache) for release in RELEASES]
    lines = fold([(op_list, contrib) for op_list, contrib, _ in collected])
    stated_line = fold_stated([facts for _, _, facts in collected])
    text = "\n".join([json.dumps([release.minor for release in RELEASES]), stated_line, *lines, ""])
    TABLE.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{TABLE}: {len(lines)} ops of {len(RELEASES)} releases, {TABLE.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
