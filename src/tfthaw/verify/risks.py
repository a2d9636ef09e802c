"""Which ops of a graph reach outside of it: files, code, the network.

A graph is a program. Comparing outputs runs it, so a graph with such ops is run only when that was asked for by name.
Ops that every saved graph has (restoring a checkpoint, writing one) count only where they are more than that.

Source: io_ops.cc, script_ops.cc, logging_ops.cc, dataset_ops.cc and lookup_ops.cc of TensorFlow.
"""

from __future__ import annotations

from tfthaw.ir.graph import Graph

REACHING_OPS = frozenset({
    "WriteFile", "ReadFile", "MatchingFiles", "ImmutableConst", "WholeFileReader", "WholeFileReaderV2",
    "TextLineReader", "TextLineReaderV2", "FixedLengthRecordReader", "FixedLengthRecordReaderV2", "TFRecordReader",
    "TFRecordReaderV2", "LMDBReader", "TextLineDataset", "TFRecordDataset", "TFRecordDatasetV2",
    "FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "SqlDataset", "CacheDataset", "CacheDatasetV2",
    "SaveDataset", "SaveDatasetV2", "LoadDataset", "SnapshotDataset", "SnapshotDatasetV2", "DatasetToTFRecord",
    "DebugIdentity", "DebugIdentityV2", "DebugIdentityV3", "DebugNanCount", "DebugNumericSummary", "PrintV2",
    "PyFunc", "PyFuncStateless", "EagerPyFunc", "CreateSummaryFileWriter", "CreateSummaryDbWriter", "RemoteCall",
    "RpcCall", "RpcClient", "RpcServer", "TryRpc", "Rpc", "DataServiceDataset", "DataServiceDatasetV2",
    "DataServiceDatasetV3", "DataServiceDatasetV4", "RegisterDataset",
})  # fmt: skip


def reaching_ops(graph: Graph) -> list[str]:
    """Return the ops of a graph and its functions that reach outside, each once."""
    return sorted({node.op for node in graph.walk()} & REACHING_OPS)
