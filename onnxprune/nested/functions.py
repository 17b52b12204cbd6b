"""Functions that a model brings along. Law: a call is replaced by the function's nodes, or stays a call.

onnx's inliner does the replacing, nested calls included. It refuses functions written for another operator set; where
every operator that such a function uses is the same in both sets, it is first declared for the model's.
"""

from __future__ import annotations

import onnx
from onnx import inliner

from onnxprune.graph import canonical, subgraphs

# A runtime's own operator goes before a function of the same name, which is only there for other runtimes.
RUNTIME = ("com.microsoft", "com.ms.", "ai.onnx", "com.nvidia")


def inline_functions(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the calls of its functions replaced, where they can be."""
    chosen = [(f.domain, f.name) for f in proto.functions if f.domain and not f.domain.startswith(RUNTIME)]
    if not chosen:
        return proto
    declared = {o.domain: o.version for o in proto.opset_import}
    for function in proto.functions:
        adapt(function, declared)
    for domain in sorted({o.domain for f in proto.functions for o in f.opset_import} - set(declared)):
        version = next(o.version for f in proto.functions for o in f.opset_import if o.domain == domain)
        proto.opset_import.append(onnx.helper.make_opsetid(domain, version))
    try:
        return inliner.inline_selected_functions(proto, chosen)
    except (RuntimeError, onnx.checker.ValidationError):  # e.g. an operator set that onnx does not know: calls stay
        return proto


def adapt(function: onnx.FunctionProto, declared: dict[str, int]) -> None:
    """Declare a function for the model's operator set, if its operators have not changed between the two (in place)."""
    for entry in function.opset_import:
        wanted = declared.get(entry.domain, entry.version)
        if entry.version != wanted and all(same(node, entry, wanted) for node in function.node):
            entry.version = wanted


def same(node: onnx.NodeProto, entry: onnx.OperatorSetIdProto, wanted: int) -> bool:
    """Whether a node means the same in another version of its operator set."""
    if any(not same(inner, entry, wanted) for body in subgraphs(node) for inner in body.node):
        return False
    if canonical(node.domain) != canonical(entry.domain):
        return True
    try:
        before, after = (onnx.defs.get_schema(node.op_type, v, node.domain) for v in (entry.version, wanted))
    except onnx.defs.SchemaError:
        return False
    return bool(before.since_version == after.since_version)
