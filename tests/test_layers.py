"""The architecture, read from the source: who may import whom, and how long things may get.

Each check takes one module and gives the list of what is wrong with it. Each is tested twice: the package passes it,
and a planted violation does not.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
PACKAGE = "onnxprune"

# A module, or a package folder, may import only those to its left.
ORDER = (
    "errors progress scripts labels graph encoding external model data shapes runtime cache nested unfuse normalise "
    "sharing rules trace dead cost calibrate importance latency align plan rewrite profile reference pieces branches "
    "verify lossless isolate fidelity metric sensitivity recover bench fit gains report outputs gate pipeline sweep "
    "demo cli"
).split()
OPEN = {"__init__", "__main__"}  # at the top of the package they gather from everywhere
VAGUE = {"utils", "util", "base", "common", "helpers", "misc"}
FUNCTION_LINES = 40
COMMAND_LINES = 15
MODULE_LINES = 400
IMPORT_NAMES = {
    "pillow": "PIL",
    "protobuf": "google",
    "onnx-graphsurgeon": "onnx_graphsurgeon",
    "onnxruntime-gpu": "onnxruntime",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Module:
    """One source file; `path` is relative to the package folder."""

    path: Path
    source: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def layer(self) -> str:
        """`plan` for plan.py, `rules` for every file in rules/."""
        return self.path.parts[0].removesuffix(".py")

    @property
    def folder(self) -> list[str]:
        """The dotted name, as parts, of the package that this file lies in."""
        return [PACKAGE, *self.path.parts[:-1]]


Check = Callable[[Module], list[str]]


def package() -> list[Module]:
    root = REPO / PACKAGE
    return [Module(p.relative_to(root), p.read_text(encoding="utf-8")) for p in sorted(root.rglob("*.py"))]


# --- reading imports -------------------------------------------------------------------------------------------------


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything imported, wherever it stands; `from a import b` gives `a.b`."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(module, node)
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and (name := dynamic(node)):
            yield node.lineno, name


def absolute(module: Module, node: ast.ImportFrom) -> str:
    """The dotted name after `from`, with leading dots resolved."""
    if not node.level:
        return node.module or ""
    parent = module.folder[: len(module.folder) - node.level + 1]
    return ".".join([*parent, *([node.module] if node.module else [])])


def dynamic(call: ast.Call) -> str | None:
    """The module that `import_module("name")` or `__import__("name")` names literally."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    if function in {"import_module", "__import__"} and call.args and isinstance(call.args[0], ast.Constant):
        return str(call.args[0].value)
    return None


def declared() -> set[str]:
    """The import names of the libraries in pyproject.toml."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = sum(project["optional-dependencies"].values(), project["dependencies"])
    names = {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in wanted}
    return {IMPORT_NAMES.get(name, name) for name in names}


# --- the checks ------------------------------------------------------------------------------------------------------


def known(module: Module) -> list[str]:
    """Every module has its place in the order."""
    if module.layer in OPEN or module.layer in ORDER:
        return []
    return [f"{module.path}: {module.layer!r} has no place in ORDER"]


def order(module: Module) -> list[str]:
    """A module imports only modules to its left, and nothing through the package's own `__init__`."""
    if module.layer in OPEN or module.layer not in ORDER:
        return []
    left = ORDER[: ORDER.index(module.layer)]
    found = []
    for line, name in imports(module):
        root, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if root == PACKAGE and target not in [*left, module.layer]:
            found.append(f"{module.path}:{line}: {module.layer} may not import {target or PACKAGE}")
        elif root == PACKAGE and target == module.layer and len(module.path.parts) == 1:
            found.append(f"{module.path}:{line}: {module.layer} imports itself")
    return found


def libraries(module: Module) -> list[str]:
    """Only declared libraries are imported; onnxruntime by runtime alone; labels know numpy, not ONNX."""
    allowed = declared() - ({"onnxruntime"} if module.layer != "runtime" else set())
    if module.layer == "labels":
        allowed = {"numpy"}
    roots = [(line, name.partition(".")[0]) for line, name in imports(module)]
    outside = [(line, root) for line, root in roots if root not in sys.stdlib_module_names | {PACKAGE}]
    return [f"{module.path}:{line}: may not import {root}" for line, root in outside if root not in allowed]


def names(module: Module) -> list[str]:
    """A module's name says what it holds."""
    return [f"{module.path}: {part!r} says nothing" for part in module.path.with_suffix("").parts if part in VAGUE]


def function_length(module: Module) -> list[str]:
    """A function, signature and docstring included, fits on a screen; a command's signature lists its options."""
    functions = [n for n in ast.walk(module.tree) if isinstance(n, FUNCTIONS) and not is_command(n)]
    return [
        f"{module.path}:{f.lineno}: {f.name} has {lines(f)} lines, at most {FUNCTION_LINES}"
        for f in functions
        if lines(f) > FUNCTION_LINES
    ]


def command_length(module: Module) -> list[str]:
    """The body of a command only calls a public function and renders its result."""
    commands = [node for node in ast.walk(module.tree) if isinstance(node, FUNCTIONS) and is_command(node)]
    return [
        f"{module.path}:{c.lineno}: command {c.name} has a body of {body_lines(c)} lines, at most {COMMAND_LINES}"
        for c in commands
        if body_lines(c) > COMMAND_LINES
    ]


def module_length(module: Module) -> list[str]:
    """A module can be read in one sitting."""
    count = len(module.source.splitlines())
    return [f"{module.path}: {count} lines, at most {MODULE_LINES}"] if count > MODULE_LINES else []


def docstrings(module: Module) -> list[str]:
    """A module states its law; every public class, function and method says what it is for."""
    missing = [] if ast.get_docstring(module.tree) or not module.source.strip() else [f"{module.path}:1: module"]
    missing += [
        f"{module.path}:{node.lineno}: {node.name}"
        for node in public(module.tree)
        if not ast.get_docstring(node) and not decorators(node) & {"overload", "override", "setter"}
    ]
    return [f"{entry} has no docstring" for entry in missing]


CHECKS: tuple[Check, ...] = (
    known,
    order,
    libraries,
    names,
    function_length,
    command_length,
    module_length,
    docstrings,
)


def lines(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def body_lines(node: Function) -> int:
    """Lines of the body without its docstring."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def decorators(node: ast.ClassDef | Function) -> set[str]:
    """The last part of each decorator's name: `command` for `@app.command()`."""
    targets = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    return {t.attr if isinstance(t, ast.Attribute) else getattr(t, "id", "") for t in targets}


def is_command(node: Function) -> bool:
    return "command" in decorators(node)


def public(node: ast.Module | ast.ClassDef) -> Iterator[ast.ClassDef | Function]:
    """Public classes and functions of a module and their public methods; `if` and `try` are looked into."""
    pending = list(node.body)
    while pending:
        child = pending.pop(0)
        if isinstance(child, (ast.ClassDef, *FUNCTIONS)):
            if not child.name.startswith("_"):
                yield child
                if isinstance(child, ast.ClassDef):
                    yield from public(child)
        elif isinstance(child, (ast.If, ast.Try)):
            pending += [inner for inner in ast.iter_child_nodes(child) if isinstance(inner, ast.stmt)]
            pending += [s for h in getattr(child, "handlers", []) for s in h.body]


# --- the package passes ----------------------------------------------------------------------------------------------


def test_the_package_is_read() -> None:
    assert {"errors", "labels", "model"} <= {module.layer for module in package()}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_package(check: Check) -> None:
    found = [violation for module in package() for violation in check(module)]
    assert not found, "\n" + "\n".join(found)


# --- planted violations do not ---------------------------------------------------------------------------------------

DOC = '"""A law."""\n'
LONG = "".join("    x = 1\n" for _ in range(FUNCTION_LINES))
BODY = "".join("    x = 1\n" for _ in range(COMMAND_LINES + 1))

PLANTED: list[tuple[Check, str, str]] = [
    (known, "newcomer.py", DOC),
    (known, "newcomer/part.py", DOC),
    (order, "labels.py", "from onnxprune.trace import trace\n"),
    (order, "labels.py", "import onnxprune.trace\n"),
    (order, "labels.py", "from onnxprune import trace\n"),
    (order, "labels.py", "from . import trace\n"),
    (order, "rules/layout.py", "from ..plan import plan\n"),
    (order, "rules/layout.py", "def f():\n    from onnxprune.plan import plan\n"),
    (order, "plan.py", "if TYPE_CHECKING:\n    from onnxprune.cli import main\n"),
    (order, "plan.py", "importlib.import_module('onnxprune.cli')\n"),
    (order, "plan.py", "from onnxprune import prune\n"),
    (order, "plan.py", "from onnxprune import *\n"),
    (order, "plan.py", "import onnxprune\n"),
    (order, "plan.py", "from onnxprune.plan import plan\n"),
    (libraries, "bench.py", "import onnxruntime\n"),
    (libraries, "bench.py", "from onnxruntime.capi import session\n"),
    (libraries, "bench.py", "__import__('onnxruntime')\n"),
    (libraries, "__init__.py", "import onnxruntime as ort\n"),
    (libraries, "recover/bias.py", "import torch\n"),
    (libraries, "labels.py", "import onnx\n"),
    (names, "utils.py", DOC),
    (names, "rules/base.py", DOC),
    (function_length, "plan.py", "def f():\n" + LONG),
    (function_length, "plan.py", "class C:\n    async def f(self):\n" + LONG.replace("    x", "        x")),
    (command_length, "cli.py", "@app.command('prune')\ndef f():\n    'doc'\n" + BODY),
    (module_length, "plan.py", "x = 1\n" * (MODULE_LINES + 1)),
    (docstrings, "plan.py", "x = 1\n"),
    (docstrings, "plan.py", DOC + "def f(): ...\n"),
    (docstrings, "plan.py", DOC + "class C: ...\n"),
    (docstrings, "plan.py", DOC + "class C:\n    'doc'\n    def f(self): ...\n"),
    (docstrings, "plan.py", DOC + "try:\n    x = 1\nexcept E:\n    def f(): ...\n"),
]

SOUND: list[tuple[Check, str, str]] = [
    (known, "rules/anything.py", DOC),
    (known, "__init__.py", DOC),
    (order, "__init__.py", "from onnxprune.cli import main\n"),
    (order, "trace.py", "import numpy\nfrom onnxprune.labels import Ids\nfrom onnxprune import model\n"),
    (order, "rules/layout.py", "from . import registry\nfrom onnxprune.rules.op import Op\n"),
    (libraries, "runtime.py", "import onnxruntime\n"),
    (libraries, "labels.py", "import dataclasses\nimport numpy as np\nfrom onnxprune.errors import ModelError\n"),
    (libraries, "model.py", "from google.protobuf.message import DecodeError\nimport onnx\n"),
    (names, "rules/layout.py", DOC),
    (function_length, "plan.py", "def f():\n" + LONG.removeprefix("    x = 1\n")),
    (command_length, "cli.py", "@app.command()\ndef f():\n    'doc'\n" + BODY.removeprefix("    x = 1\n")),
    (command_length, "cli.py", "def f():\n" + BODY),
    (function_length, "cli.py", "@app.command()\ndef f(\n" + "    x: X,\n" * FUNCTION_LINES + "):\n    run()\n"),
    (module_length, "plan.py", "x = 1\n" * MODULE_LINES),
    (docstrings, "plan.py", DOC + "def _f(): ...\nclass _C:\n    def f(self): ...\n"),
    (docstrings, "plan.py", DOC + "def f():\n    'doc'\n    def g(): ...\n"),
    (docstrings, "plan.py", DOC + "@overload\ndef f(): ...\n"),
    (docstrings, "rules/__init__.py", ""),
]


def cases(table: list[tuple[Check, str, str]]) -> list[object]:
    return [pytest.param(c, Module(Path(p), s), id=f"{c.__name__}-{n}") for n, (c, p, s) in enumerate(table)]


@pytest.mark.parametrize(("check", "module"), cases(PLANTED))
def test_planted_violation_is_caught(check: Check, module: Module) -> None:
    assert check(module)


@pytest.mark.parametrize(("check", "module"), cases(SOUND))
def test_sound_module_passes(check: Check, module: Module) -> None:
    assert not check(module)


def test_every_check_has_planted_violations() -> None:
    assert {check for check, _, _ in PLANTED} == set(CHECKS)
