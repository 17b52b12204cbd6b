"""Laws of samples from a script: no more is taken than wanted, and what does not fit names the script and the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.data.script import named, read_script, size_of, stored
from onnxprune.errors import DataError
from tests import graphs
from tests.data.test_npz import model
from tests.data.test_samples import recurrent, sequences

HEAD = "import numpy as np\n"
ENDLESS = """
n = 0
def batches():
    global n
    while True:
        n += 1
        assert n <= 5, "took more than was wanted"
        yield {"x": np.full((2, 3, 8, 8), n, "f"), "labels": None}
"""


def script(folder: Path, text: str) -> Path:
    (folder / "data.py").write_text(HEAD + text)
    return folder / "data.py"


def test_a_stream_that_never_ends_gives_what_is_wanted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = read_script(model(), script(tmp_path, "print('hello')\n" + ENDLESS), 10, 0)
    assert found.count == 10 == found.about["samples"]
    assert found.sets[0]["x"][:, 0, 0, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    out, err = capfd.readouterr()
    assert not out and "hello" in err


def test_arrays_alone_lists_and_single_samples_will_do_for_one_input(tmp_path: Path) -> None:
    text = "def batches(): return [np.ones((3, 8, 8), 'f'), np.ones((2, 3, 8, 8), 'f')]\n"
    assert read_script(model(), script(tmp_path, text), 100, 0).sets[0]["x"].shape == (3, 3, 8, 8)


def test_of_one_large_batch_samples_are_spread(tmp_path: Path) -> None:
    text = "def batches(): yield np.arange(100, dtype='f')[:, None, None, None] * np.ones((100, 3, 8, 8), 'f')\n"
    found = read_script(model(), script(tmp_path, text), 10, 0).sets[0]["x"][:, 0, 0, 0]
    assert (found // 10).tolist() == list(range(10))


def test_text_scalars_states_and_clips_of_any_length(tmp_path: Path) -> None:
    held = graphs.loaded(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> g (string[N] x) => (string[N] y) { y = Identity (x) }'
        )
    )
    text = "def batches(): return [np.array(['a', 'bb'], object), np.array(['ccc'])]\n"
    assert read_script(held, script(tmp_path, text), 9, 0).sets[0]["x"].tolist() == ["a", "bb", "ccc"]
    text = "def batches():\n    for n in (3, 5, 3): yield {'x': np.ones((2, n), 'f'), 's': np.float32(2)}\n"
    assert [f["x"].shape for f in read_script(sequences(), script(tmp_path, text), 9, 0).sets] == [(4, 3), (2, 5)]
    text = "def batches():\n    while 1: yield {'x': np.ones((1, 3), 'f'), 'h': np.ones((2, 1, 4), 'f')}\n"
    assert len(read_script(recurrent(), script(tmp_path, text), 3, 0).sets) == 3


WRONG = {
    "no function": ("x = 1\n", "defines no function 'batches'"),
    "one array": ("def batches(): return np.ones((2, 3, 8, 8), 'f')\n", "gives ndarray, no series of batches"),
    "a dict": ("def batches(): return {'x': 1}\n", "gives dict, no series of batches"),
    "nothing": ("def batches(): return []\n", "gives nothing"),
    "None": ("def batches(): pass\n", "gives NoneType, no series"),
    "labels": ("def batches(): yield np.ones((2, 3, 8, 8), 'f'), 3\n", "batch 1 is a tuple of 2.*without labels"),
    "another name": ("def batches(): yield {'image': 1}\n", "batch 1 has no array for .*'x' .it has: image"),
    "objects": ("def batches(): yield np.array([{}])\n", "batch 1: array 'x' holds dict objects"),
    "ragged": ("def batches(): yield [[1], [1, 2]]\n", "raised ValueError"),
    "raises later": ("def batches():\n    yield np.ones((1, 3, 8, 8), 'f')\n    1 / 0\n", "ZeroDivisionError.*line 4"),
    "type": ("def batches(): yield np.ones((1, 3, 8, 8))\n", "'x' is float64, .*batch 1; convert it"),
    "shape later": (
        "def batches():\n    yield np.ones((1, 3, 8, 8), 'f')\n    yield np.ones((1, 1, 8, 8), 'f')\n",
        "shape 1 x 1 x 8 x 8.*batch 2",
    ),
    "not finite": ("def batches(): yield np.full((1, 3, 8, 8), np.inf, 'f')\n", "NaN or infinity.*batch 1"),
    "dies": ("import os\ndef batches(): os._exit(3)\n", "exit code 3"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_names_the_script(name: str, tmp_path: Path) -> None:
    text, message = WRONG[name]
    path = script(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        read_script(model(), path, 10, 0)
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_several_inputs_need_names() -> None:
    with pytest.raises(DataError, match="batch 2 is one ndarray, the model has the inputs 'a', 'b'"):
        named(np.ones(3), ["a", "b"], 2)


def test_what_counts_as_samples() -> None:
    assert size_of({"x": np.ones((5, 2)), "s": np.ones(())}, {"x": 2, "s": 0}) == 5
    assert size_of({"x": np.ones(2)}, {"x": 2}) == 1  # a sample without its axis
    assert size_of({"x": np.ones((1, 3)), "h": np.ones((2, 1, 4))}, {"x": 2, "h": 3}) == 1


def test_no_more_is_stored_than_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    assert stored(script(tmp_path, ENDLESS), {"x": 4}, 3, str(tmp_path)) == 2
    assert sorted(path.name for path in tmp_path.glob("*.npy")) == ["0.0.npy", "1.0.npy"]
