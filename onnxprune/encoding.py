"""Names in a file are text. Law: what is not UTF-8 is found before anything is named after it.

Protobuf reads any bytes as a name and gives them back as `bytes`, which neither onnx nor a dictionary of names expects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto

FREE_TEXT = frozenset({"doc_string", "metadata_props"})  # nothing is looked up by it


def foreign_name(proto: Message) -> bytes | None:
    """The first name in a model that is not UTF-8, or None."""
    return next((name for name in every_name(proto) if isinstance(name, bytes)), None)


def every_name(message: Message) -> Iterator[str | bytes]:
    """All text fields of a message and those inside it; of a tensor its name and where its data lies, not the data."""
    if isinstance(message, TensorProto):
        yield message.name
        yield from (entry.value for entry in message.external_data)
        return
    for field, value in message.ListFields():
        if field.name in FREE_TEXT or field.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE):
            continue
        items: list[Any] = [value] if isinstance(value, str | bytes | Message) else list(value)
        for item in items:
            if isinstance(item, Message):
                yield from every_name(item)
            else:
                yield item
