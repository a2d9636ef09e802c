"""Our schema against TensorFlow's own descriptors, and both in one process."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FieldDescriptor

from tfthaw import proto

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "src" / "tfthaw" / "proto"


def our_files():
    files = descriptor_pb2.FileDescriptorSet.FromString((PROTO / "descriptors.bin").read_bytes()).file
    return [file for file in files if not file.name.startswith("google/")]


def messages(prefix, declared):
    for message in declared:
        name = f"{prefix}.{message.name}"
        yield name, message
        yield from messages(name, message.nested_type)


def facts(message):
    """What bytes and text depend on: number, name, type, label, packing and oneof of each field."""
    oneofs = [oneof.name for oneof in message.oneof_decl]
    return {
        field.number: (
            field.name, field.type, field.label, field.type_name, field.options.packed,
            oneofs[field.oneof_index] if field.HasField("oneof_index") else None,
        )
        for field in message.field
    }  # fmt: skip


def as_proto(descriptor, cls):
    result = cls()
    descriptor.CopyToProto(result)
    return result


@pytest.fixture(scope="module")
def tensorflow_pool():
    importlib.import_module("tensorflow")
    # these three are not imported by TensorFlow itself
    for name in ("framework.tensor_slice_pb2", "util.saved_tensor_slice_pb2", "protobuf.tensor_bundle_pb2"):
        importlib.import_module(f"tensorflow.core.{name}")
    return descriptor_pool.Default()


@pytest.mark.tf
def test_every_message_is_tensorflow_s(tensorflow_pool):
    seen = 0
    for file in our_files():
        for name, ours in messages(file.package, file.message_type):
            theirs = as_proto(tensorflow_pool.FindMessageTypeByName(name), descriptor_pb2.DescriptorProto)

            assert facts(theirs) == facts(ours), name
            assert {each.name for each in theirs.nested_type} == {each.name for each in ours.nested_type}, name
            assert theirs.options.map_entry == ours.options.map_entry, name
            seen += 1
    assert seen > 110


@pytest.mark.tf
def test_every_enum_is_tensorflow_s(tensorflow_pool):
    enums = []
    for file in our_files():
        enums += [(f"{file.package}.{enum.name}", enum) for enum in file.enum_type]
        for name, message in messages(file.package, file.message_type):
            enums += [(f"{name}.{enum.name}", enum) for enum in message.enum_type]
    assert {"tensorflow.DataType", "tensorflow.FullTypeId"} <= {name for name, _ in enums}
    for name, ours in enums:
        theirs = as_proto(tensorflow_pool.FindEnumTypeByName(name), descriptor_pb2.EnumDescriptorProto)

        assert {(each.number, each.name) for each in theirs.value} == {(each.number, each.name) for each in ours.value}


@pytest.mark.tf
@pytest.mark.parametrize("order", [["tensorflow", "tfthaw.proto"], ["tfthaw.proto", "tensorflow"]])
def test_both_live_in_one_process(order):
    program = (
        f"import {order[0]}, {order[1]}\n"
        "from tensorflow.core.framework import graph_pb2\n"
        "from tfthaw import proto\n"
        "ours = proto.GraphDef(node=[proto.NodeDef(name='a', op='NoOp')])\n"
        "theirs = graph_pb2.GraphDef.FromString(ours.SerializeToString())\n"
        "assert theirs.node[0].op == 'NoOp'\n"
        "assert type(theirs) is not type(ours)\n"
        "assert proto.GraphDef.FromString(theirs.SerializeToString()) == ours\n"
        "print('both')\n"
    )
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)

    assert (done.stdout, done.returncode) == ("both\n", 0), done.stderr


def test_descriptors_are_what_the_schema_compiles_to(tmp_path):
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "make_descriptors.py", tmp_path / "tools")
    shutil.copytree(PROTO / "schema", tmp_path / "src" / "tfthaw" / "proto" / "schema")

    # a process of its own: the compiler and TensorFlow crash each other
    subprocess.run([sys.executable, tmp_path / "tools" / "make_descriptors.py"], check=True)

    data = (tmp_path / "src" / "tfthaw" / "proto" / "descriptors.bin").read_bytes()
    compiled = descriptor_pb2.FileDescriptorSet.FromString(data)
    # other versions of protoc may bring another google/protobuf/any.proto
    ours = [file for file in compiled.file if not file.name.startswith("google/")]
    assert our_files() == ours


def test_every_schema_file_says_where_it_is_from():
    files = sorted((PROTO / "schema").glob("*.proto"))
    assert len(files) > 25
    for path in files:
        assert "// Source of names, numbers and types: " in path.read_text(), path


def test_every_public_class_is_in_the_private_pool():
    classes = {
        name: value
        for name, value in vars(proto).items()
        if isinstance(value, type) and issubclass(value, proto.Message) and value is not proto.Message
    }
    assert len(classes) > 25
    for name, cls in classes.items():
        assert proto.pool().FindMessageTypeByName(cls.DESCRIPTOR.full_name) is cls.DESCRIPTOR, name
    fields = proto.TensorProto.DESCRIPTOR.fields_by_name
    assert fields["tensor_content"].number == 4
    assert fields["tensor_content"].type == FieldDescriptor.TYPE_BYTES
