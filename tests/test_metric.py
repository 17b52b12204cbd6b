"""Laws of the user's metric: its number comes back as it is, and every failure names the script."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from onnxprune.errors import DataError
from onnxprune.metric import metric
from onnxprune.scripts import answer_in
from tests import graphs
from tests.contract import stored

SOUND = """
import numpy as np
import beside
print("on standard output")
def evaluate(run):
    return np.float32(run({"x": np.ones((2, 3, 8, 8), np.float32)})["y"].shape[1] + beside.HALF)
"""
BROKEN = {
    "feeds": (
        "import numpy as np\ndef evaluate(run): return run(np.zeros(3))",
        "run was given ndarray, not {input: array}",
    ),
    "no function": ("x = 1\n", "defines no function 'evaluate'"),
    "no callable": ("evaluate = 3\n", "defines no function 'evaluate'"),
    "text": ("def evaluate(run): return 'good'\n", "returned str 'good', no finite number"),
    "nothing": ("def evaluate(run): pass\n", "returned NoneType"),
    "not finite": ("def evaluate(run): return float('nan')\n", "returned float 'nan'"),
    "truth": ("def evaluate(run): return True\n", "returned bool"),
    "raises": ("def evaluate(run):\n    return 1 / 0\n", "raised ZeroDivisionError.* in line 2"),
    "no Python": ("def evaluate(run:\n", "raised SyntaxError"),
    "wrong input": ("def evaluate(run): return run({})\n", "raised .*in line 1|cannot run the model"),
}
FATAL = {
    "dies": ("import os\ndef evaluate(run): os._exit(3)\n", "exit code 3"),
    "raises": BROKEN["raises"],
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return stored(graphs.chain(), tmp_path)


def test_the_number_comes_back_and_prints_stay_out_of_the_way(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = model.with_name("script.py")
    script.write_text(SOUND)
    script.with_name("beside.py").write_text("HALF = 0.5\n")
    assert metric(script, model) == 5.5
    out, err = capfd.readouterr()
    assert not out and "on standard output" in err


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_told(name: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, answer = model.with_name("script.py"), model.with_name("answer.json")
    script.write_text(BROKEN[name][0])
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    arguments = json.dumps({"model": str(model), "threads": 1})
    answer_in(
        "onnxprune.metric:value", script, answer, arguments
    )  # what the fresh process does, without waiting for it
    assert re.search(BROKEN[name][1], json.loads(answer.read_text())["error"])


@pytest.mark.parametrize("name", FATAL)
def test_failures_name_the_script(name: str, model: Path) -> None:
    script = model.with_name("script.py")
    script.write_text(FATAL[name][0])
    with pytest.raises(DataError, match=FATAL[name][1]) as found:
        metric(script, model)
    assert str(script) in str(found.value) and "\n" not in str(found.value)
