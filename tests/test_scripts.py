"""Laws of the user's scripts: one runs in a process of its own, which ends with this one, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onnxprune.errors import DataError
from onnxprune.scripts import ask, function_of
from tests.contract import environment

CODE = """
from pathlib import Path
import sys
from onnxprune.scripts import ask
from onnxprune.metric import value
ask(value, Path(sys.argv[1]), {"model": sys.argv[2], "threads": 1}, "")
"""


def worker(script: Path, word: str) -> object:
    return function_of(script, "answer")(word)


def test_arguments_go_there_and_json_comes_back(tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text("import os\ndef answer(word): return [word, os.getpid()]\n")
    word, process = ask(worker, script, {"word": "é"}, "")
    assert word == "é" and process != os.getpid()


def test_a_script_that_is_absent_or_a_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.py"):
        with pytest.raises(DataError, match="is not a file") as found:
            ask(worker, path, {"word": ""}, "")
        assert str(path) in str(found.value)


def test_the_working_folder_and_relative_paths_are_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.py").write_text("from pathlib import Path\ndef answer(word): return str(Path.cwd())\n")
    monkeypatch.chdir(tmp_path)
    assert ask(worker, Path("s.py"), {"word": ""}, "") == str(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX")
def test_ctrl_c_ends_the_script_and_leaves_no_file(tmp_path: Path) -> None:
    script, scratch, model = tmp_path / "s.py", tmp_path / "scratch", tmp_path / "m.onnx"
    scratch.mkdir()
    mark = tmp_path / "pid"
    script.write_text(f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    kept = environment() | {"TMPDIR": str(scratch)}
    command = [sys.executable, "-c", CODE, str(script), str(model)]
    parent = subprocess.Popen(command, env=kept, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 30
    while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(mark.read_text())
    os.kill(parent.pid, signal.SIGINT)  # to the parent alone: it is that which ends the child
    parent.wait(timeout=30)
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the script outlived its parent")
    assert not list(scratch.iterdir())


def test_an_interrupted_script_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "s.py"
    script.write_text("def answer(word): raise KeyboardInterrupt\n")
    with pytest.raises(DataError, match="exit code 130"):
        ask(worker, script, {"word": ""}, "")
    assert capfd.readouterr() == ("", "")


def test_nothing_is_left_beside_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    (tmp_path / "beside.py").write_text("word = 'yes'\n")
    (tmp_path / "s.py").write_text("import beside\n\n\ndef answer(word): return beside.word\n")
    ask(worker, tmp_path / "s.py", {"word": ""}, "")
    assert {path.name for path in tmp_path.iterdir()} == {"beside.py", "s.py"}


def test_what_a_script_raises_is_shown_from_its_own_lines_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "s.py"
    script.write_text("def answer(word):\n    raise ValueError(word)\n")
    with pytest.raises(DataError, match=r"raised ValueError: boom in line 2; .*mend the script") as found:
        ask(worker, script, {"word": "boom"}, "example")
    assert "example" not in str(found.value)
    shown = capfd.readouterr().err
    assert "in answer" in shown and "ValueError: boom" in shown and "in answer_in" not in shown
    script.write_text("syntax error here\n")
    with pytest.raises(DataError, match="raised SyntaxError"):
        ask(worker, script, {"word": ""}, "")
    shown = capfd.readouterr().err
    assert "syntax error here" in shown and "importlib" not in shown
    script.write_text("def answer(): return 1\n")
    with pytest.raises(DataError, match=r"raised TypeError.*; example"):
        ask(worker, script, {"word": "boom"}, "example")
