"""Laws of the runtime: it runs what it is given, changes none of it, and refuses in one line."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune import runtime
from onnxprune.errors import DataError, ModelError, ProviderError, RuntimeUnavailable
from onnxprune.runtime import accelerators, sessions

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEAD} {text}")


def chain() -> onnx.ModelProto:
    """y = Relu(x @ w) + b, with a weight large enough to be handed over apart."""
    made = model("g (float[N, 64] x) => (float[N, 32] y) { h = MatMul(x, w) r = Relu(h) y = Add(r, b) }")
    rng = np.random.default_rng(1)
    for name, shape in (("w", (64, 32)), ("b", (32,))):
        made.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    return made


def apart(whole: onnx.ModelProto) -> SimpleNamespace:
    """The same model as a graph without large weights, and its arrays."""
    weights = {t.name: numpy_helper.to_array(t) for t in whole.graph.initializer}
    bare = onnx.ModelProto()
    bare.CopyFrom(whole)
    for tensor in bare.graph.initializer:
        tensor.ClearField("raw_data")
    return SimpleNamespace(proto=bare, weights=weights)


def expected(whole: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    w, b = (numpy_helper.to_array(t) for t in whole.graph.initializer)
    h = x @ w
    return {"h": h, "r": np.maximum(h, 0), "y": np.maximum(h, 0) + b, "w": w, "b": b, "x": x}


@pytest.mark.parametrize("form", ["proto", "bytes", "path", "str", "apart"])
def test_every_form_of_a_model_gives_the_same_result(form: str, tmp_path: Path) -> None:
    whole = chain()
    path = tmp_path / "m.onnx"
    onnx.save(whole, path)
    forms: dict[str, Any] = {"bytes": whole.SerializeToString(), "path": path, "str": str(path), "apart": apart(whole)}
    feeds = runtime.random_feeds(forms.get(form, whole), batch=3)
    result = runtime.run(forms.get(form, whole), feeds)
    np.testing.assert_allclose(result["y"], expected(whole, feeds["x"])["y"], rtol=1e-5, atol=1e-5)


def test_a_model_too_large_for_one_protobuf_runs_and_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = chain()
    before, feeds = whole.SerializeToString(), runtime.random_feeds(whole)
    monkeypatch.setattr(sessions, "PROTO_LIMIT", 100)
    monkeypatch.setattr(onnx.ModelProto, "SerializeToString", refuse_weights(onnx.ModelProto.SerializeToString))
    result = runtime.run(whole, feeds)
    monkeypatch.undo()
    np.testing.assert_allclose(result["y"], expected(whole, feeds["x"])["y"], rtol=1e-5, atol=1e-5)
    assert whole.SerializeToString() == before


def refuse_weights(serialise: object) -> object:
    """SerializeToString that fails on a large message, as protobuf does at 2 GiB."""

    def limited(self: onnx.ModelProto) -> bytes:
        data: bytes = serialise(self)  # type: ignore[operator]
        assert len(data) < 64 * 32 * 4, "the weights were serialised"
        return data

    return limited


def test_arrays_handed_over_in_place_live_as_long_as_the_session_and_no_longer() -> None:
    whole = chain()
    held = apart(whole)
    w = held.weights["w"] = np.array(held.weights["w"])
    feeds, gone = runtime.random_feeds(whole), weakref.ref(w)
    opened = runtime.session(held)
    wanted = expected(whole, feeds["x"])["y"]
    del held, w
    gc.collect()
    assert gone() is not None
    np.testing.assert_allclose(runtime.run(opened, feeds)["y"], wanted, rtol=1e-5, atol=1e-5)
    del opened
    gc.collect()
    assert gone() is None


def test_weight_bytes_counts_what_protobuf_would_serialise() -> None:
    assert sessions.weight_bytes(chain()) == (64 * 32 + 32) * 4


def test_detach_keeps_everything_but_the_data() -> None:
    whole = chain()
    whole.metadata_props.add(key="k", value="v")
    whole.producer_name, whole.graph.doc_string = "p", "d"
    bare, arrays = sessions.detach(whole)
    assert list(arrays) == ["w"]
    entry = next(t for t in bare.graph.initializer if t.name == "w")
    entry.CopyFrom(numpy_helper.from_array(arrays["w"], "w"))
    assert bare == whole


@pytest.mark.parametrize("form", ["proto", "apart"])
def test_capture_gives_inputs_weights_and_everything_between(form: str) -> None:
    whole = chain()
    source = whole if form == "proto" else apart(whole)
    before, feeds = whole.SerializeToString(), runtime.random_feeds(whole, batch=2)
    wanted = expected(whole, feeds["x"])
    got = runtime.capture(source, feeds, [*wanted, "h"])
    assert list(got) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    assert whole.SerializeToString() == before


def test_capture_of_nothing_is_nothing() -> None:
    assert runtime.capture(chain(), {}, []) == {}


def test_capture_of_an_unknown_tensor_names_the_nearest() -> None:
    whole = model("g (float[1] input) => (float[1] relu_out) { relu_out = Relu(input) }")
    with pytest.raises(ModelError, match="no tensor is named 'relu_ou'; did you mean 'relu_out'"):
        runtime.capture(whole, runtime.random_feeds(whole), ["relu_ou"])


def test_feeds_are_seeded_and_of_the_declared_types() -> None:
    whole = model(
        "g (float[2, 3] a, float16[4] b, int64[5] c, bool[6] d, uint8[7] e, double f, bfloat16[3] h) => (float[2, 3] y)"
        "{ y = Identity(a) }"
    )
    one, same, other = (runtime.random_feeds(whole, seed=s) for s in (1, 1, 2))
    kinds = {"a": "float32", "b": "float16", "c": "int64", "d": "bool", "e": "uint8", "f": "float64", "h": "bfloat16"}
    assert {name: a.dtype.name for name, a in one.items()} == kinds
    assert [a.shape for a in one.values()] == [(2, 3), (4,), (5,), (6,), (7,), (), (3,)]
    assert all((one[n] == same[n]).all() for n in one) and not (one["a"] == other["a"]).all()
    assert set(np.unique(one["c"])) <= {0, 1}


def test_feeds_leave_out_initializers_and_give_a_symbol_one_size() -> None:
    whole = model(
        "g (float[batch, seq] a, float[batch, seq, 4] b, float[2, batch, 4] state, float[3] w) => (float[batch, seq] y)"
        "<float[3] w = {1, 2, 3}> { y = Identity(a) }"
    )
    shapes = {n: a.shape for n, a in runtime.random_feeds(whole, batch=5).items()}
    length = shapes["a"][1]
    assert shapes == {"a": (5, length), "b": (5, length, 4), "state": (2, 5, 4)}


def test_open_image_axes_get_the_first_guess_the_model_runs_on() -> None:
    reshape = "shape = Constant <value_ints = [1, 3, 4096]> () y = Reshape(x, shape)"
    whole = model(f"g (float[N, C, H, W] x) => (float[1, 3, 4096] y) {{ {reshape} }}")
    assert runtime.random_feeds(whole)["x"].shape == (1, 3, 64, 64)


def test_sizes_override_guesses_by_symbol_or_by_axis() -> None:
    whole = model("g (float[N, 3, H, W] x) => (float[N, 3, H, W] y) { y = Relu(x) }")
    assert runtime.random_feeds(whole, sizes={"H": 8, "x.3": 9})["x"].shape == (1, 3, 8, 9)
    with pytest.raises(DataError, match=r"'Q' is no open input axis; open: H, N, W"):
        runtime.random_feeds(whole, sizes={"Q": 8})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("g (string[2] x) => (string[2] y) { y = Identity(x) }", "input 'x' holds text"),
        ("g (seq(float[2]) x) => (seq(float[2]) y) { y = Identity(x) }", "input 'x' is not a tensor of known rank"),
        (
            "g (float[N, L] x) => (float[7] y) { s = Constant <value_ints = [7]> () y = Reshape(x, s) }",
            "no guess at the open input sizes makes the model run; inputs 'x'",
        ),
    ],
)
def test_inputs_that_cannot_be_made_up_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        runtime.random_feeds(model(text))


def test_bfloat16_goes_in_and_comes_out() -> None:
    whole = model("g (bfloat16[N, 3] x) => (bfloat16[N, 3] y) { y = Identity(x) }")
    feeds = runtime.random_feeds(whole, batch=2)
    result = runtime.run(whole, feeds)["y"]
    assert result.dtype.name == "bfloat16" and (result == feeds["x"]).all()


class Counted:
    """A session that counts its runs and keeps its bindings."""

    def __init__(self, real: Any) -> None:
        self.real, self.runs, self.bindings = real, 0, list[Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def run(self, *given: Any) -> Any:
        self.runs += 1
        return self.real.run(*given)

    def run_with_iobinding(self, binding: Any) -> None:
        self.runs += 1
        self.real.run_with_iobinding(binding)

    def io_binding(self) -> Any:
        self.bindings.append(self.real.io_binding())
        return self.bindings[-1]


@pytest.mark.parametrize("bound", [False, True])
def test_a_runner_runs_the_session_every_time_it_is_called(bound: bool) -> None:
    counted, feeds = Counted(runtime.session(chain())), runtime.random_feeds(chain())
    once = runtime.bound_runner(counted, feeds, "cpu") if bound else runtime.runner(counted, feeds)
    assert counted.runs == 1  # the first run tells whether the feeds fit
    once()
    once()
    assert counted.runs == 3


def test_bound_outputs_hold_the_result() -> None:
    counted, feeds = Counted(runtime.session(chain())), runtime.random_feeds(chain(), batch=2)
    runtime.bound_runner(counted, feeds, "cpu")()
    np.testing.assert_array_equal(counted.bindings[0].copy_outputs_to_cpu()[0], runtime.run(counted, feeds)["y"])


def test_a_runner_refuses_feeds_that_do_not_fit() -> None:
    for make in (runtime.runner, lambda s, f: runtime.bound_runner(s, f, "cpu")):
        with pytest.raises(DataError):
            make(runtime.session(chain()), {"x": np.zeros((1, 5), np.float32)})


def test_optimised_ops_shows_the_fusion_that_unoptimised_sessions_lack() -> None:
    text = "g (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] y) { h = Conv <kernel_shape = [1, 1]> (x, w) y = Relu(h) }"
    whole = model(text)
    weight = np.random.default_rng(0).normal(size=(16, 16, 1, 1)).astype(np.float32)
    whole.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    kinds = runtime.optimised_ops(whole)
    assert kinds == runtime.optimised_ops(apart(whole))
    assert "ai.onnx::Relu" not in kinds and sum(n for k, n in kinds.items() if k.endswith("Conv")) == 1


@pytest.mark.parametrize("name", ["cpu", "CPU", "CPUExecutionProvider", "cpuexecutionprovider"])
def test_providers_go_by_short_or_full_name_in_any_case(name: str) -> None:
    assert runtime.session(chain(), provider=name).get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize(("name", "remedy"), [("cuda", r"onnxprune\[gpu\]"), ("nonesuch", "use one of those present")])
def test_an_absent_provider_is_an_error_that_lists_those_present(
    name: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(sessions, "onnxruntime", lambda: only)
    with pytest.raises(ProviderError, match=f"no provider '{name}'; present: cpu; .*{remedy}"):
        runtime.provider_name(name)


def gpu(monkeypatch: pytest.MonkeyPatch, opened: Opened, missing: str = "") -> dict[str, object]:
    """An onnxruntime whose sessions are `opened`; what it was asked for."""
    asked: dict[str, object] = {}

    def create(*_: object, **options: object) -> SimpleNamespace:
        asked.update(options)
        return opened

    def load() -> None:
        asked["preloaded"] = True
        print(missing)

    monkeypatch.setattr(accelerators, "STARTED", set())
    monkeypatch.setattr(sessions, "onnxruntime", lambda: SimpleNamespace(InferenceSession=create, preload_dlls=load))
    return asked


class Opened(SimpleNamespace):
    """A session: unlike its base class, it can be referred to weakly."""


class Recorded(SimpleNamespace):
    """Session options that keep what is set."""

    def add_session_config_entry(self, key: str, value: str) -> None:
        setattr(self, key, value)


def opened_by(provider: str, **nodes: int) -> Opened:
    """A session with so many nodes on each provider."""
    parts = [SimpleNamespace(ep_name=ep, get_nodes=lambda n=n: [0] * n) for ep, n in nodes.items()]
    return Opened(get_providers=lambda: [provider], get_provider_graph_assignment_info=lambda: parts)


CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


def test_a_provider_that_silently_falls_back_is_an_error_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    gpu(monkeypatch, Opened(get_providers=lambda: [runtime.CPU]), "Failed to load libcublas.so.13: not found")
    with pytest.raises(ProviderError, match=r"CUDAExecutionProvider does not start .*\(Failed to load libcublas"):
        sessions.open_session(b"", Recorded(), CUDA)
    assert capfd.readouterr() == ("", "")


NO_DEVICE = (  # as onnxruntime 1.31.1 says it
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void, "
    "onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const char*, "
    "const char*, int) [with ERRTYPE = cudaError; bool THRW = true] CUDA failure 100: no CUDA-capable device is "
    "detected ; GPU=-1 ; hostname=x ; file=y ; line=67 ; expr=cudaSetDevice(info_.device_id);"
)
NO_TENSORRT = (
    "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void onnxruntime::python::"
    "RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) Please install TensorRT"
)


@pytest.mark.parametrize(
    ("provider", "message", "shown"),
    [
        (CUDA, NO_DEVICE, r"\(CUDA failure 100: no CUDA-capable device is detected\)"),
        (TENSORRT, NO_TENSORRT, r"\(Please install TensorRT\)"),
    ],
)
def test_what_keeps_a_provider_from_starting_is_not_blamed_on_the_model(
    provider: str, message: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(sessions, "onnxruntime", lambda: SimpleNamespace(InferenceSession=refuse))
    with pytest.raises(ProviderError, match=f"{provider} does not start on this machine {shown}"):
        sessions.open_session(b"", Recorded(), provider)


def test_a_provider_is_tried_on_a_model_that_does_nothing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "STARTED", set())
    opened: list[bytes] = []
    create = lambda model, **_: opened.append(model)  # noqa: E731
    for _ in range(2):
        assert accelerators.failure(SimpleNamespace(InferenceSession=create), CUDA, [CUDA]) is None
    assert opened == [runtime.trivial()]
    runtime.run(runtime.session(runtime.trivial()), {"x": np.ones(1, np.float32)})


def test_a_provider_that_takes_no_node_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, opened_by(CUDA, CPUExecutionProvider=3))
    with pytest.raises(ProviderError, match="CUDAExecutionProvider takes none of the model's 3 nodes"):
        sessions.open_session(b"", Recorded(), CUDA)


def test_a_gpu_has_its_libraries_loaded_and_no_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, options = opened_by(CUDA, CUDAExecutionProvider=5, CPUExecutionProvider=1), Recorded()
    asked = gpu(monkeypatch, opened)
    assert sessions.open_session(b"", options, CUDA) is opened
    assert asked["preloaded"] and asked["enable_fallback"] == 0 and vars(options) == {accelerators.RECORD: "1"}
    assert runtime.assigned(opened) == {CUDA: 5, runtime.CPU: 1}


@pytest.mark.parametrize(
    "opened",
    [opened_by(CUDA), Opened(get_providers=lambda: [CUDA])],
    ids=["everything was folded away", "an onnxruntime that does not tell"],
)
def test_a_session_that_may_well_run_there_is_taken(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, opened)
    assert sessions.open_session(b"", Recorded(), CUDA) is opened


def test_only_a_gpu_needs_its_libraries() -> None:
    called: list[str] = []
    ort = SimpleNamespace(preload_dlls=lambda: called.append("loaded"))
    assert accelerators.preload(ort, runtime.CPU) == accelerators.preload(SimpleNamespace(), CUDA) == "" and not called
    assert accelerators.preload(ort, TENSORRT) == "" and called == ["loaded"]


def test_nodes_are_counted_by_the_provider_that_runs_them() -> None:
    options = sessions.session_options(optimise=False)
    options.add_session_config_entry(accelerators.RECORD, "1")
    opened = sessions.open_session(chain(), options, runtime.CPU)
    if hasattr(opened, "get_provider_graph_assignment_info"):  # onnxruntime 1.24
        assert runtime.assigned(opened) == {runtime.CPU: len(chain().graph.node)}


def test_without_onnxruntime_the_error_names_both_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeUnavailable, match=r"onnxprune\[cpu\].*onnxprune\[gpu\]"):
        runtime.session(chain())


@pytest.mark.parametrize("bad", [b"not a model", model("g (float[1] x) => (float[1] y) { y = Nonesuch(x) }")])
def test_a_model_onnxruntime_refuses_is_one_line(bad: object) -> None:
    with pytest.raises(RuntimeUnavailable) as caught:
        runtime.session(bad)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value) and "ONNXRuntimeError" not in str(caught.value)


def test_feeds_that_do_not_fit_are_a_data_error_on_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    for feeds in ({}, {"x": np.zeros((1, 5), np.float32)}, {"x": np.zeros((1, 64), np.int64)}):
        with pytest.raises(DataError) as caught:
            runtime.run(chain(), feeds)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_and_no_threads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        runtime.session(tmp_path / "none.onnx")
    with pytest.raises(DataError, match="0 threads"):
        runtime.session(chain(), threads=0)


def test_brief_drops_codes_and_source_positions() -> None:
    error = RuntimeError(
        "[ONNXRuntimeError] : 1 : FAIL : /src/core/graph/model.cc:179 onnxruntime::Model::Model(onnx::ModelProto&&) "
        "Unsupported\n model IR version: 99"
    )
    assert sessions.brief(error) == "Unsupported model IR version: 99"
    assert len(sessions.brief(RuntimeError("x" * 999))) == 240


def test_the_environment_says_what_a_time_depends_on() -> None:
    facts = runtime.environment()
    assert facts.keys() >= {"onnxruntime", "providers", "cpu", "simd", "cores", "python", "numpy"}
    assert "CPUExecutionProvider" in facts["providers"] and facts["cores"] >= 1 and facts["cpu"]


def test_large_weights_go_through_a_file_that_is_gone_afterwards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = chain()
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)}
    direct = runtime.run(apart(whole), feeds)
    monkeypatch.setattr(sessions, "MAPPED", 0)
    monkeypatch.setattr(sessions.tempfile, "tempdir", str(tmp_path))
    opened = runtime.session(apart(whole))
    np.testing.assert_array_equal(runtime.run(opened, feeds)["y"], direct["y"])
    assert not list(tmp_path.iterdir())
