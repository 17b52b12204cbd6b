"""What holds for every graph and every plan. The laws of single operators are those of tests/rules/test_laws.py.

Beside them: the normalised model computes what the file does; a plan survives its JSON; the whole command line prunes
the file in onnxruntime and keeps its contract.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnx import NodeProto

from onnxprune.importance import Scores
from onnxprune.labels import Ids
from onnxprune.model import from_proto
from onnxprune.plan import Limits, Plan, Target, plan
from onnxprune.plan.document import parse
from onnxprune.rewrite import rewrite
from onnxprune.trace import Dependencies, trace
from tests.contract import check_report, onnxprune, stored
from tests.rules.cases import Case
from tests.rules.test_laws import LAWS, Subject, close, cut_off, evaluate

# A sum that rounds differently makes these jump, which in single precision happens now and then.
JUMPS = frozenset(
    "ArgMax ArgMin BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Equal Floor Greater GreaterOrEqual Hardmax "
    "Less LessOrEqual Mod Round Shrink Sign ThresholdedRelu IsInf".split()
)


def check(case: Case, seed: int) -> int:
    """Check one graph under several random plans; the number of plans that removed something.

    Raises:
        AssertionError: A law is broken.
    """
    dependencies, feeds = trace(case.model()), case.feeds()
    model = dependencies.model
    assert not [f for f in dependencies.freezes if "internal error" in f.reason]
    values = evaluate(case, model, feeds) | dict(model.weights) | feeds
    agree_with_file(case, values)
    chosen = [(removed, rewrite(dependencies, removed)) for removed in removals(dependencies, seed)]
    subject = Subject(case, dependencies, feeds, values, tuple(chosen))
    for law in LAWS:
        if law is not cut_off or not turned(dependencies):
            law(subject)
    return len(chosen)


def turned(dependencies: Dependencies) -> bool:
    """Whether a weight produces channels on two axes: shared by two layers, it has no side that `cut_off` can zero."""
    axes = {(s.tensor, s.axis) for s in dependencies.sources}
    return len({tensor for tensor, _ in axes}) < len(axes)


def agree_with_file(case: Case, values: object) -> None:
    """Dense and normalised give the same outputs."""
    original = from_proto(case.proto())
    found = evaluate(case, original, case.feeds())
    for info in original.proto.graph.output:
        close(case, found[info.name], values[info.name], info.name)  # type: ignore[index]


def removals(dependencies: Dependencies, seed: int) -> Iterator[Ids]:
    """Two random plans: one of any ratio, alignment and skips, and one of everything but what must stay."""
    rng = np.random.default_rng(seed)
    if not dependencies.groups:
        return
    skip = tuple(g.name for g in dependencies.groups if len(dependencies.groups) > 1 and rng.random() < 0.2)
    varied = Limits(align=int(rng.choice([1, 1, 2])), skip=skip[: len(dependencies.groups) - 1])
    for aim, limits in ((Target(ratio=float(rng.uniform(0.1, 0.9))), varied), (Target(ratio=0.99), Limits())):
        scores = Scores("random", rng.random(dependencies.unit_count))
        removed = survives_json(plan(dependencies, scores, aim, limits)).removed(dependencies)
        if removed.size:
            yield removed


def survives_json(chosen: Plan) -> Plan:
    """The plan after a round trip through its file's text."""
    again = parse(json.loads(chosen.to_json()))
    assert again.to_json() == chosen.to_json()
    return again


def steady(nodes: list[NodeProto]) -> bool:
    """Whether small differences stay small."""
    return not any(n.op_type in JUMPS for n in nodes)


def check_command(case: Case) -> str:
    """Prune the file, in single precision, by the command line: 'pruned', or why it was refused.

    Raises:
        AssertionError: It failed, was not verified, or broke the contract of the report.
    """
    single = Case(case.name, case.signature, case.body, case.weights, case.opset, case.ir, lacks="runs in onnxruntime")
    with tempfile.TemporaryDirectory() as place:
        path = stored(single.proto(), Path(place))
        small = path.with_name("small.onnx")
        found = onnxprune("prune", path, "-o", small, "--ratio", "0.5", "--align", "1", "--no-bench", "--json")
        if found.code:
            assert "leaves nothing" in found.err or "nothing" in found.err, found.err
            return found.err
        check_report(found.json)
        again = onnxprune("prune", small, "-o", path.with_name("again.onnx"), "--align", "1", "--no-bench", "--json")
        assert again.code == 0 or "nothing" in again.err, again.err
    return "pruned"
