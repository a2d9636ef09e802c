"""Any TensorFlow model artifact in, whatever you need out, with proof that it is the same model.

    import tfthaw

    with tfthaw.open("model.ckpt-1000") as artifact:
        kernel = artifact.variables["dense/kernel"].numpy()
    result = tfthaw.convert("saved/", "frozen.pb", to="frozen-graph")

Names are imported when they are first used, so that `import tfthaw` costs next to nothing; it never imports TensorFlow,
h5py or onnxruntime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfthaw.conversion.converting import convert as convert
    from tfthaw.conversion.options import Options as Options
    from tfthaw.conversion.result import ConversionResult as ConversionResult
    from tfthaw.conversion.result import Verified as Verified
    from tfthaw.dtypes import DType as DType
    from tfthaw.errors import ChecksumError as ChecksumError
    from tfthaw.errors import FormatError as FormatError
    from tfthaw.errors import LimitError as LimitError
    from tfthaw.errors import MissingDependencyError as MissingDependencyError
    from tfthaw.errors import NotFoundError as NotFoundError
    from tfthaw.errors import OutputExistsError as OutputExistsError
    from tfthaw.errors import RestoreError as RestoreError
    from tfthaw.errors import RuntimeFailure as RuntimeFailure
    from tfthaw.errors import StructureError as StructureError
    from tfthaw.errors import TfthawError as TfthawError
    from tfthaw.errors import TruncatedError as TruncatedError
    from tfthaw.errors import UnknownFormatError as UnknownFormatError
    from tfthaw.errors import UnsafePathError as UnsafePathError
    from tfthaw.errors import UnsupportedError as UnsupportedError
    from tfthaw.errors import UsageError as UsageError
    from tfthaw.errors import VerificationError as VerificationError
    from tfthaw.inspection import Report as Report
    from tfthaw.inspection import inspect as inspect
    from tfthaw.limits import Limits as Limits
    from tfthaw.serde.artifacts import Artifact as Artifact
    from tfthaw.serde.artifacts import open_artifact as open  # noqa: F401
    from tfthaw.tensors import Tensor as Tensor
    from tfthaw.verify.diff import Difference as Difference
    from tfthaw.verify.diff import diff as diff
    from tfthaw.verify.proofs import OutputProof as OutputProof
    from tfthaw.verify.proofs import WeightProof as WeightProof

__version__ = "0.1.0"

_PLACES = {
    # Functions
    "open": ("tfthaw.serde.artifacts", "open_artifact"),
    "inspect": ("tfthaw.inspection", "inspect"),
    "convert": ("tfthaw.conversion.converting", "convert"),
    "diff": ("tfthaw.verify.diff", "diff"),
    # What they take and give
    "Artifact": ("tfthaw.serde.artifacts", "Artifact"),
    "ConversionResult": ("tfthaw.conversion.result", "ConversionResult"),
    "DType": ("tfthaw.dtypes", "DType"),
    "Difference": ("tfthaw.verify.diff", "Difference"),
    "Limits": ("tfthaw.limits", "Limits"),
    "Options": ("tfthaw.conversion.options", "Options"),
    "OutputProof": ("tfthaw.verify.proofs", "OutputProof"),
    "Report": ("tfthaw.inspection", "Report"),
    "Tensor": ("tfthaw.tensors", "Tensor"),
    "Verified": ("tfthaw.conversion.result", "Verified"),
    "WeightProof": ("tfthaw.verify.proofs", "WeightProof"),
} | {
    # Errors
    name: ("tfthaw.errors", name)
    for name in (
        "TfthawError", "FormatError", "UnknownFormatError", "TruncatedError", "ChecksumError", "LimitError",
        "UnsafePathError", "StructureError", "NotFoundError", "OutputExistsError", "UnsupportedError", "UsageError",
        "RestoreError", "VerificationError", "RuntimeFailure", "MissingDependencyError",
    )
}  # fmt: skip

__all__ = ["__version__", *_PLACES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'tfthaw' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
