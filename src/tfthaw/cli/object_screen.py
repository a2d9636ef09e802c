"""The tree of objects that `tfthaw inspect` shows: what people made, without what Keras keeps for itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tfthaw.cli.rendering import heading, shape_text

SHORT_DEPTH = 3
SHORT_LINES = 40
_MOST_CAPTURES = 8
_INTERNAL = ("signatures", "call_and_return_all_conditional_losses", "call_and_return_conditional_losses",
             "regularization_losses", "keras_api", "_default_save_signature")  # fmt: skip
_PLAIN_CLASSES = ("_generic_user_object", "trackable_list_wrapper", "trackable_dict_wrapper", "trackable_tuple_wrapper")


def show_objects(document: Mapping[str, Any], *, whole: bool) -> None:
    """Show the `object_graph` of a report.

    Args:
        document: The object graph, as `inspect --json` has it.
        whole: Whether to show every object, with keys and captures, instead of the first ones that people made.
    """
    root = document["tree"][0]["class"] if document["tree"] else None
    is_known = root is not None and root not in _PLAIN_CLASSES
    heading(f"objects: {document['objects']}{f', the root is {root}' if is_known else ''}")
    lines = list(_lines(document, whole=whole))
    shown = lines if whole else lines[:SHORT_LINES]
    width = max((len(name) for name, _ in shown), default=0)
    for name, text in shown:
        print(f"  {name.ljust(width)}  {text}".rstrip())
    left = len(lines) - len(shown)
    if left or not whole:
        print(f"  {f'... and {left} more; ' if left else ''}-v shows all {document['objects']} objects")


def _lines(document: Mapping[str, Any], *, whole: bool) -> Iterator[tuple[str, str]]:
    """Yield name and text of each object that is shown, parents before their children."""
    texts = _texts(document, whole=whole)
    slots = {item["path"]: item for item in document["variables"] if item["slot"]}
    shown: set[tuple[str, ...]] = set()
    hidden_slots = 0
    for path in sorted(texts, key=lambda each: each.split("/")):
        if path in slots and not whole:
            hidden_slots += 1
            continue
        parts = tuple(path.split("/"))
        if not whole and (len(parts) > SHORT_DEPTH or any(part in _INTERNAL for part in parts)):
            continue
        for depth in range(1, len(parts)):  # what stands between, when nothing more is known of it
            if parts[:depth] not in shown:
                shown.add(parts[:depth])
                yield "  " * (depth - 1) + parts[depth - 1], ""
        shown.add(parts)
        first, *rest = texts[path] or [""]
        yield "  " * (len(parts) - 1) + parts[-1], first
        for text in rest:
            yield "", text
    if hidden_slots:
        names = sorted({item["slot"] for item in slots.values()})
        yield f"({hidden_slots} slot variables)", ", ".join(names)


def _texts(document: Mapping[str, Any], *, whole: bool) -> dict[str, list[str]]:
    """Return what to say of each object, by path."""
    texts: dict[str, list[str]] = {}
    for item in document["tree"]:
        if item["path"]:
            is_plain = item["class"] is None or item["class"] in _PLAIN_CLASSES
            if whole:
                texts[item["path"]] = [item["class"] or item["kind"]]
            elif not is_plain and item["kind"] == "object":
                texts[item["path"]] = [item["class"]]
    for layer in document["layers"]:
        if layer["path"]:
            texts[layer["path"]] = [f"{layer['class']}{_units(layer['config'])}"]
    for item in document["variables"]:
        if item["path"] is not None:
            texts[item["path"]] = [_variable_text(item, whole=whole)]
    for item in document["functions"]:
        if item["path"] is not None and (whole or not _is_inner(item["path"])):
            found = (_trace_text(name, document["traces"].get(name), whole=whole) for name in item["traces"])
            texts[item["path"]] = list(dict.fromkeys(found))
    for item in document["assets"]:
        if item["path"] is not None:
            texts[item["path"]] = [f"asset {item['file'] or '(not there)'}"]
    for item in document["tables"]:
        if item["path"] is not None:
            texts[item["path"]] = [item["class"] or "resource"]
    return texts


def _is_inner(path: str) -> bool:
    """Whether a function is a trace of another one, or one that makes, fills or destroys a table."""
    _, _, name = path.rpartition("/")
    return name.startswith("trace_") or name in ("_create_resource", "_initialize", "_destroy_resource")


def _variable_text(item: Mapping[str, Any], *, whole: bool) -> str:
    facts = [f"{item['dtype'] or '?'}{shape_text(item['shape'])}"]
    if item["slot"]:
        facts.append(f"slot {item['slot']} of {item['slot_of']}")
    elif item["trainable"]:
        facts.append("trainable")
    if whole and item["key"]:
        facts.append(item["key"])
    return "  ".join(facts)


def _trace_text(name: str, trace: Mapping[str, Any] | None, *, whole: bool) -> str:
    if trace is None:
        return f"{name} (not known)"
    text = f"{trace['call']} -> {trace['result']}"
    captures = trace["captures"] if whole else []
    if captures:
        more = f" and {len(captures) - _MOST_CAPTURES} more" if len(captures) > _MOST_CAPTURES else ""
        text += f"  captures {', '.join(captures[:_MOST_CAPTURES])}{more}"
    return text


def _units(config: Mapping[str, Any] | None) -> str:
    """Return the facts of a layer's configuration that tell it from others of its class."""
    facts = [f"{key}={config[key]}" for key in ("units", "filters", "kernel_size", "rate", "activation")
             if config and isinstance(config.get(key), (str, int, float, list))]  # fmt: skip
    return f"({', '.join(facts)})" if facts else ""
