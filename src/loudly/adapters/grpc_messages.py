"""The messages of the Open Inference Protocol over gRPC, made at run time: no generated code, so any protobuf of today reads them.

Source: `open_inference_grpc.proto` of kserve/open-inference-protocol (Apache License 2.0), whose names and numbers these are.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
TENSOR = "string name = 1; string datatype = 2; repeated int64 shape = 3;"
FILLED = f"{TENSOR} map<string, InferParameter> parameters = 4; InferTensorContents contents = 5;"
MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live = 1;",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready = 1;",
    "ModelReadyRequest": "string name = 1; string version = 2;",
    "ModelReadyResponse": "bool ready = 1;",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name = 1; string version = 2; repeated string extensions = 3;",
    "ModelMetadataRequest": "string name = 1; string version = 2;",
    "ModelMetadataResponse": (
        "string name = 1; repeated string versions = 2; string platform = 3; "
        "repeated ModelMetadataResponse.TensorMetadata inputs = 4; repeated ModelMetadataResponse.TensorMetadata outputs = 5;"
    ),
    "ModelMetadataResponse.TensorMetadata": TENSOR,
    "ModelInferRequest": (
        "string model_name = 1; string model_version = 2; string id = 3; map<string, InferParameter> parameters = 4; "
        "repeated ModelInferRequest.InferInputTensor inputs = 5; "
        "repeated ModelInferRequest.InferRequestedOutputTensor outputs = 6; repeated bytes raw_input_contents = 7;"
    ),
    "ModelInferRequest.InferInputTensor": FILLED,
    "ModelInferRequest.InferRequestedOutputTensor": "string name = 1; map<string, InferParameter> parameters = 2;",
    "ModelInferResponse": (
        "string model_name = 1; string model_version = 2; string id = 3; map<string, InferParameter> parameters = 4; "
        "repeated ModelInferResponse.InferOutputTensor outputs = 5; repeated bytes raw_output_contents = 6;"
    ),
    "ModelInferResponse.InferOutputTensor": FILLED,
    "InferParameter": (
        "oneof bool bool_param = 1; oneof int64 int64_param = 2; oneof string string_param = 3; "
        "oneof double double_param = 4; oneof uint64 uint64_param = 5;"
    ),
    "InferTensorContents": (
        "repeated bool bool_contents = 1; repeated int32 int_contents = 2; repeated int64 int64_contents = 3; "
        "repeated uint32 uint_contents = 4; repeated uint64 uint64_contents = 5; repeated float fp32_contents = 6; "
        "repeated double fp64_contents = 7; repeated bytes bytes_contents = 8;"
    ),
}
FIELD = re.compile(r"(?:(repeated|oneof) )?(map<string, \w+>|[\w.]+) (\w+) = (\d+);")
KIND = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    name: getattr(KIND, f"TYPE_{name.upper()}")
    for name in ("bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64")
}


def _described() -> Any:
    """The file of the protocol as a descriptor."""
    file = descriptor_pb2.FileDescriptorProto(name="open_inference_grpc.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, Any] = {}
    for name, fields in MESSAGES.items():
        outer, _, inner = name.rpartition(".")
        made[name] = (made[outer].nested_type if outer else file.message_type).add(name=inner)
        for rule, kind, field, number in FIELD.findall(fields):
            if kind.startswith("map"):
                kind, rule = _entry(made[name], name, field, kind[12:-1]), "repeated"
            _add(made[name], rule, kind, field, int(number))
    return file


def _entry(message: Any, name: str, field: str, kind: str) -> str:
    """The message of a map's entries, as protobuf wants it."""
    entry = message.nested_type.add(name=f"{field.title()}Entry")
    entry.options.map_entry = True
    _add(entry, "", "string", "key", 1)
    _add(entry, "", kind, "value", 2)
    return f"{name}.{entry.name}"


def _add(message: Any, rule: str, kind: str, name: str, number: int) -> None:
    made = message.field.add(name=name, number=number)
    made.label = KIND.LABEL_REPEATED if rule == "repeated" else KIND.LABEL_OPTIONAL
    made.type = SCALARS.get(kind, KIND.TYPE_MESSAGE)
    if kind not in SCALARS:
        made.type_name = f".{PACKAGE}.{kind}"
    if rule == "oneof":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        made.oneof_index = 0


# A pool of our own: in the common one the file of another library with the same messages would stand against it.
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_described())


def kind(name: str) -> Any:
    """The class of a message, such as "ModelInferRequest"."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
