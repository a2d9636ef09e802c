"""Modules, names and files of Python that cannot be had: what is meant, and where it comes from.

Source: the table of renamed modules in the documentation of lib2to3 (fix_imports); what CPython's parser says of
Python 2.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from types import ModuleType

from tfthaw.errors import MissingDependencyError, TfthawError, UsageError

_PACKAGES = {
    "cv2": "opencv-python", "PIL": "pillow", "sklearn": "scikit-learn", "skimage": "scikit-image", "yaml": "pyyaml",
    "tensorflow_hub": "tensorflow-hub", "tensorflow_addons": "tensorflow-addons", "tf_slim": "tf_slim",
    "tensorflow_probability": "tensorflow-probability", "tensorflow_datasets": "tensorflow-datasets",
    "tensorflow_text": "tensorflow-text", "official": "tf-models-official", "google.protobuf": "protobuf",
    "bs4": "beautifulsoup4", "Bio": "biopython",
}  # fmt: skip
"""Modules that pip knows by another name."""

_PYTHON_2 = {
    "cPickle": "pickle", "ConfigParser": "configparser", "Queue": "queue", "urllib2": "urllib.request",
    "urlparse": "urllib.parse", "StringIO": "io", "cStringIO": "io", "__builtin__": "builtins", "Tkinter": "tkinter",
    "HTMLParser": "html.parser", "httplib": "http.client", "cookielib": "http.cookiejar", "commands": "subprocess",
    "SocketServer": "socketserver", "copy_reg": "copyreg", "thread": "_thread",
}  # fmt: skip
"""Modules of Python 2 -> their names in Python 3."""

_FROM_SOURCE = {
    "object_detection": "tensorflow/models, folder research", "slim": "tensorflow/models, folder research/slim",
    "nets": "tensorflow/models, folder research/slim", "deeplab": "tensorflow/models, folder research",
}  # fmt: skip
"""Modules that no package has -> the repository that they are in."""

_OFTEN_IMPORTED = ("tensorflow", "numpy", "keras", "tf_keras", "pandas", "scipy", "matplotlib", *_PACKAGES)
_SIMILAR = 0.75
_SAYS_PYTHON_2 = (
    "call to 'print'", "call to 'exec'", "multiple exception types", "leading zeros in decimal", "octal",
    "inconsistent use of tabs", "<>", "invalid decimal literal",
)  # fmt: skip
_LOOKS_LIKE_PYTHON_2 = re.compile(
    r"^\s*(print\s+[^(=\s]|raise \w+,|except [\w.]+,)|`[^`]+`|<>|\b0\d+L?\b|\d+L\b|\bur[\"']"
)


def missing_module(name: str, code: str | os.PathLike[str] | None, where: str | None) -> TfthawError:
    """Return the error that a module is not there, with what to do.

    Args:
        name: The module.
        code: The user's code.
        where: The line that imports it.
    """
    top = name.split(".", maxsplit=1)[0]
    if name in _PYTHON_2:
        return UsageError(f"the code is for Python 2: it imports {name}", path=code, where=where,
                          hint=f"in Python 3 that is {_PYTHON_2[name]}")  # fmt: skip
    if top in sys.stdlib_module_names or top in sys.modules:
        return UsageError(f"the code imports {name}, which the {top} that is installed does not have", path=code,
                          where=where)  # fmt: skip
    own = "where it is a module of yours, add its folder to PYTHONPATH"
    near = difflib.get_close_matches(top, _OFTEN_IMPORTED, n=1, cutoff=_SIMILAR)
    if top in _FROM_SOURCE:
        hint = f"it is in the repository {_FROM_SOURCE[top]}: clone it, and add that folder to PYTHONPATH"
    elif near and near[0] != top and abs(len(near[0]) - len(top)) <= 1:  # a slip of the finger
        hint = f"{near[0]} may be meant; {own}"
    else:
        hint = f"install it with: pip install {_PACKAGES.get(name) or _PACKAGES.get(top, top)}; or, {own}"
    return MissingDependencyError(f"the code imports {name}, which is not installed", path=code, where=where, hint=hint)


def syntax_error(error: SyntaxError, code: str | os.PathLike[str] | None, where: str | None) -> TfthawError:
    """Return the error that a file is not Python, or not Python 3.

    Args:
        error: What the parser raised.
        code: The user's code.
        where: The line.
    """
    message = error.msg or "invalid syntax"
    is_python_2 = any(said in message for said in _SAYS_PYTHON_2) or bool(
        _LOOKS_LIKE_PYTHON_2.search(str(error.text or ""))
    )
    hint = "this is Python 2; turn it into Python 3 first (2to3 does most of it)" if is_python_2 else None
    return UsageError(f"the file is not Python: {message}", path=code, where=where, hint=hint)


def near_attributes(error: AttributeError) -> list[str]:
    """Return the names that a module has and that are spelled almost like one that it has not."""
    if not isinstance(error.obj, ModuleType) or not isinstance(error.name, str):
        return []
    try:
        if hasattr(getattr(getattr(error.obj, "compat", None), "v1", None), error.name):
            return []  # TensorFlow 1 had it: no slip of the finger
        known = [name for name in dir(error.obj) if name[:1] != "_"]
    except Exception:  # noqa: BLE001  # modules that load themselves when they are used may fail to
        return []
    if error.name.lower() in {name.lower() for name in known}:
        return [name for name in known if name.lower() == error.name.lower()]
    return difflib.get_close_matches(error.name, known, n=3, cutoff=_SIMILAR)
