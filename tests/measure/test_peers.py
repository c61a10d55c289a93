"""The real frameworks on a tiny network: they run, in the precision and with the threads they claim."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvmcomp.errors import DataError, TvmcompError, UsageError
from tvmcomp.measure import Contender, Turns, bench, peer_contenders, sample_inputs
from tvmcomp.measure.contender import resolve
from tvmcomp.measure.exchange import save_arrays
from tvmcomp.measure.peers import PEERS
from tvmcomp.measure.peers.feeds import bind, calibration_batches
from tvmcomp.measure.peers.onnxruntime import open_session, quantize
from tvmcomp.measure.peers.torch import open_compiled, open_eager
from tvmcomp.model import Signature, TensorType
from tvmcomp.target.cpu import host_cpu

QUICK = Turns(rounds=2, repeats=4, min_seconds=0, warmup=1, wake=1, settle=0)
SIGNATURE = Signature(
    {"x": TensorType((1, 3, 16, 16), "float32")}, {"y": TensorType((1, 10), "float32")}
)
NAMES = ["onnxruntime", "openvino", "torch"]


def make_weights(channels=8):
    rng = np.random.default_rng(5)
    c = channels
    shapes = {"conv": (c, 3, 3, 3), "bias": (c,), "dense": (c, 10), "shift": (10,)}
    return {name: rng.normal(0, 0.4, s).astype(np.float32) for name, s in shapes.items()}


def make_onnx(path, weights):
    """conv, relu, mean, dense; the batch is symbolic, as exporters like to leave it."""
    axes = np.array([2, 3], np.int64)
    nodes = [
        helper.make_node("Conv", ["x", "conv", "bias"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["r", "axes"], ["m"], keepdims=0),
        helper.make_node("Gemm", ["m", "dense", "shift"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(a, n) for n, a in {**weights, "axes": axes}.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def make_pt2(path, weights):
    import torch

    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, array in weights.items():
                self.register_buffer(name, torch.from_numpy(array))

        def forward(self, x):
            hidden = torch.nn.functional.conv2d(x, self.conv, self.bias, padding=1).relu()
            return hidden.mean((2, 3)) @ self.dense + self.shift

    torch.export.save(torch.export.export(Tiny(), (torch.zeros(1, 3, 16, 16),)), path)


def run(folder, source, weights, names, threads):
    np.savez(folder / "tiny_model.npz", **weights)
    sets = [sample_inputs(SIGNATURE, seed) for seed in range(4)]
    peers = peer_contenders(
        names,
        source=source,
        signature=SIGNATURE,
        calibration={"x": np.concatenate([arrays["x"] for arrays in sets])},
        scratch=folder,
    )
    # Dynamo alone takes a second where building kernels takes half a minute.
    peers = [
        replace(p, options={**p.options, "backend": "eager"}) if p.name == "torch.compile" else p
        for p in peers
    ]
    subject = Contender(
        "numpy",
        "float32",
        "bench_contenders:numpy_network",
        {"path": str(folder / "tiny_model.npz")},
    )
    report = bench(subject, peers, sets, description="test", threads=threads, turns=QUICK)
    return {(entry["name"], entry["precision"]): entry for entry in report["peers"]}


@pytest.fixture(scope="module")
def _importable():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield


@pytest.fixture(scope="module")
def from_onnx(tmp_path_factory, _importable):
    folder = tmp_path_factory.mktemp("onnx")
    weights = make_weights()
    make_onnx(folder / "tiny.onnx", weights)
    return folder, run(folder, folder / "tiny.onnx", weights, NAMES, threads=1)


@pytest.fixture(scope="module")
def from_pt2(tmp_path_factory, _importable):
    folder = tmp_path_factory.mktemp("pt2")
    weights = make_weights()
    make_pt2(folder / "tiny.pt2", weights)
    return folder, run(folder, folder / "tiny.pt2", weights, ["torch"], threads=2)


def ran(entry):
    assert entry["reason"] is None
    assert entry["repeats"] == 4
    assert entry["ratio"] > 0
    return entry["agreement"]["sqnr_db"]


def test_every_precision_of_every_peer_is_an_entry(from_onnx):
    _, entries = from_onnx
    assert list(entries) == [
        ("onnxruntime", "float32"),
        ("onnxruntime", "int8"),
        ("onnxruntime", "int8 dynamic"),
        ("openvino", "float32"),
        ("openvino", "bf16"),
        ("openvino", "int8"),
        ("torch", "float32"),
        ("torch", "bf16"),
        ("torch.compile", "float32"),
        ("torch.compile", "bf16"),
    ]


def test_onnxruntime_runs_float32_and_its_own_int8(from_onnx):
    folder, entries = from_onnx
    float32, int8 = (entries["onnxruntime", p] for p in ("float32", "int8"))
    assert ran(float32) > 90
    assert 20 < ran(int8) < 60
    for entry in (float32, int8):
        assert entry["settings"]["intra_op_num_threads"] == 1
        assert entry["settings"]["inter_op_num_threads"] == 1
        assert set(entry["versions"]) == {"onnxruntime"}
        assert entry["settings"]["execution_mode"] == "sequential"
        assert entry["settings"]["free_dimensions"] == {"N": 1}
    dynamic = entries["onnxruntime", "int8 dynamic"]
    assert 20 < ran(dynamic) < 80
    assert "DynamicQuantizeLinear" in {
        node.op_type for node in onnx.load(folder / "dynamic.onnx").graph.node
    }
    assert "quantize_static" in int8["settings"]["quantizer"]
    assert int8["settings"]["calibrated_on"] == "the calibration data given"
    graph = onnx.load(folder / "qdq.onnx").graph
    codes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    assert (codes["conv_quantized"].dtype, codes["conv_quantized"].shape) == (np.int8, (8, 3, 3, 3))
    assert codes["conv_scale"].shape == (8,)  # per channel
    zeros = [codes[n.input[2]] for n in graph.node if n.op_type == "QuantizeLinear"]
    assert zeros
    assert {z.dtype for z in zeros} == {np.dtype(np.uint8)}


def test_openvino_runs_each_precision_it_has(from_onnx):
    _, entries = from_onnx
    float32, bf16, int8 = (entries["openvino", p] for p in ("float32", "bf16", "int8"))
    assert ran(float32) > 90
    assert "float32" in float32["settings"]["INFERENCE_PRECISION_HINT"]
    assert 20 < ran(int8) < 60
    if host_cpu().features & {"avx512bf16", "amx-bf16"}:
        assert 20 < ran(bf16) < 90
        assert "bfloat16" in bf16["settings"]["INFERENCE_PRECISION_HINT"]
    else:
        assert "no bf16" in bf16["reason"]
    for entry in (float32, int8):
        assert entry["settings"]["INFERENCE_NUM_THREADS"] == "1"
        assert entry["settings"]["NUM_STREAMS"] == "1"


def test_openvino_int8_names_both_of_its_ways(from_onnx):
    _, entries = from_onnx
    best = entries["openvino", "int8"]
    (other,) = best["also"]
    if importlib.util.find_spec("nncf") is None:
        assert best["settings"]["quantizer"] == "ONNX Runtime's QDQ file"
        assert other["reason"].startswith("preparation: nncf is not installed")
    else:
        quantizers = {entry["settings"]["quantizer"] for entry in (best, other)}
        assert quantizers == {"nncf", "ONNX Runtime's QDQ file"}
        assert best["median_ms"] <= other["median_ms"]


def test_torch_says_that_it_cannot_run_onnx(from_onnx):
    _, entries = from_onnx
    for key in [key for key in entries if key[0].startswith("torch")]:
        reason = entries[key]["reason"]
        assert "cannot run ONNX" in reason or "no bf16" in reason
        assert entries[key]["median_ms"] is None


def test_torch_runs_eager_autocast_and_compiled(from_pt2):
    _, entries = from_pt2
    float32, bf16 = (entries["torch", p] for p in ("float32", "bf16"))
    compiled = entries["torch.compile", "float32"]
    assert ran(float32) > 90
    assert ran(compiled) > 90
    assert "torch.compile" in compiled["settings"]["mode"]
    compiled_bf16 = entries["torch.compile", "bf16"]
    for entry in (bf16, compiled_bf16):
        if host_cpu().features & {"avx512bf16", "amx-bf16"}:
            assert 20 < ran(entry) < 70
            assert "autocast to bf16" in entry["settings"]["mode"]
        else:
            assert "no bf16" in entry["reason"]
    for entry in (float32, compiled):
        assert entry["settings"]["threads"] == 2
        assert entry["settings"]["instruction_set"]


def test_a_pt2_is_exported_once_for_the_peers_that_read_onnx(from_pt2, tmp_path):
    folder, _ = from_pt2
    source = folder / "tiny.pt2"
    peers = peer_contenders(
        NAMES, source=source, signature=SIGNATURE, calibration=None, scratch=tmp_path
    )
    first = [peer.prepare[0] for peer in peers if peer.name in ("onnxruntime", "openvino")]
    assert len(first) == 7
    assert all(step == first[0] for step in first)  # equal steps run once
    assert all(peer.prepare == () for peer in peers if peer.name.startswith("torch"))
    # This process has loaded torch already, so the step is called here.
    resolve(first[0].function)(**first[0].options)
    exported = first[0].options["target"]
    assert peers[0].options["path"] == exported
    onnx.checker.check_model(exported)
    session = open_session(path=exported, threads=2, shapes={}, about={})
    (x,) = sample_inputs(SIGNATURE).values()
    (found,) = session.run({"another name": x})
    numpy_network = resolve("bench_contenders:numpy_network")
    (expected,) = numpy_network(threads=1, path=folder / "tiny_model.npz").run({"x": x})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert session.settings["intra_op_num_threads"] == 2


def test_without_calibration_the_samples_are_generated_and_said_so(tmp_path):
    make_onnx(tmp_path / "tiny.onnx", make_weights())
    peers = peer_contenders(
        NAMES,
        source=tmp_path / "tiny.onnx",
        signature=SIGNATURE,
        calibration=None,
        scratch=tmp_path,
    )
    int8 = [peer for peer in peers if peer.precision == "int8"]
    assert len(int8) == 3
    assert all("generated" in peer.options["about"]["calibrated_on"] for peer in int8)
    batches = list(calibration_batches(tmp_path / "calibration.npz", ["x"], {"x": [3, 3, 16, 16]}))
    assert [batch["x"].shape for batch in batches] == [(3, 3, 16, 16)] * 2  # of eight, two are over


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"z": np.zeros((4, 3, 16, 16))}, r"holds \['z'\], the network takes \['x'\]"),
        ({"x": np.zeros((4, 16, 16, 3))}, "axis 0 must count samples"),
        ({"x": np.zeros((0, 3, 16, 16))}, "at least one batch"),
    ],
)
def test_calibration_that_does_not_fit_is_refused(tmp_path, data, words):
    make_onnx(tmp_path / "tiny.onnx", make_weights())
    options = {"signature": SIGNATURE, "scratch": tmp_path, "source": tmp_path / "tiny.onnx"}
    with pytest.raises(DataError, match=words):
        peer_contenders(NAMES, calibration=data, **options)


def test_one_sample_and_inputs_without_a_batch_axis_calibrate(tmp_path):
    make_onnx(tmp_path / "tiny.onnx", make_weights())
    signature = Signature({**SIGNATURE.inputs, "t": TensorType((), "float32")}, SIGNATURE.outputs)
    options = {"signature": signature, "scratch": tmp_path, "source": tmp_path / "tiny.onnx"}
    shapes = {"x": [1, 3, 16, 16], "t": []}
    for data, count in [
        ({"x": np.ones((3, 16, 16), np.float32), "t": np.float32(2)}, 1),
        (None, 8),
    ]:
        peer_contenders(["onnxruntime"], calibration=data, **options)
        batches = list(calibration_batches(tmp_path / "calibration.npz", ["x", "t"], shapes))
        assert [batch["x"].shape for batch in batches] == [(1, 3, 16, 16)] * count
        assert [batch["t"].shape for batch in batches] == [()] * count


def test_unknown_peers_and_sources_are_refused(tmp_path):
    make_onnx(tmp_path / "tiny.onnx", make_weights())
    options = {"signature": SIGNATURE, "calibration": None, "scratch": tmp_path}
    with pytest.raises(UsageError, match="unknown peer tensorflow; known are onnxruntime"):
        peer_contenders(["tensorflow"], source=tmp_path / "tiny.onnx", **options)
    for source in (tmp_path / "absent.onnx", tmp_path / "calibration.npz"):
        with pytest.raises(UsageError, match=r"not an \.onnx or \.pt2 file"):
            peer_contenders(["torch"], source=source, **options)
    assert list(PEERS) == NAMES


def test_inputs_are_bound_by_name_or_in_order():
    a, b = np.zeros(1), np.ones(1)
    assert list(bind(["b", "a"], {"a": a, "b": b}).values()) == [b, a]
    assert list(bind(["p", "q"], {"a": a, "b": b}).values()) == [a, b]
    with pytest.raises(TvmcompError, match="pass one for each"):
        bind(["p"], {"a": a, "b": b})


def test_torch_refuses_before_it_is_imported(monkeypatch):
    with pytest.raises(TvmcompError, match="cannot run ONNX"):
        open_eager(path="net.onnx", threads=1)
    monkeypatch.setenv("CXX", "a-compiler-nobody-has")
    with pytest.raises(TvmcompError, match=r"needs a C\+\+ compiler"):
        open_compiled(path="net.pt2", threads=1, cache="", backend="inductor")


def test_a_model_with_its_weights_in_a_file_of_their_own_is_quantized(tmp_path):
    make_onnx(tmp_path / "one.onnx", make_weights(channels=64))  # ONNX Runtime inlines 1 KB
    model = onnx.load(tmp_path / "one.onnx")
    source = tmp_path / "two.onnx"
    onnx.save(model, source, save_as_external_data=True, location="two.data")
    samples = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    save_arrays(tmp_path / "data.npz", {"x": samples})
    quantize(
        source=str(source),
        target=str(tmp_path / "qdq.onnx"),
        calibration=str(tmp_path / "data.npz"),
        shapes={"x": [1, 3, 16, 16]},
    )
    operators = {node.op_type for node in onnx.load(tmp_path / "qdq.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators


def test_integer_inputs_and_several_outputs_bench(tmp_path):
    table = np.random.default_rng(1).normal(0, 1, (100, 16)).astype(np.float32)
    weight = np.random.default_rng(2).normal(0, 0.3, (16, 16)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["m1"]),
        helper.make_node("Mul", ["e", "m1"], ["masked"]),
        helper.make_node("MatMul", ["masked", "weight"], ["hidden"]),
        helper.make_node("ReduceMean", ["hidden", "time"], ["pooled"], keepdims=0),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tokens",
        [info("ids", TensorProto.INT64, ["N", 6]), info("mask", TensorProto.INT64, ["N", 6])],
        [
            info("hidden", TensorProto.FLOAT, ["N", 6, 16]),
            info("pooled", TensorProto.FLOAT, ["N", 16]),
        ],
        [
            numpy_helper.from_array(array, name)
            for name, array in {
                "table": table,
                "weight": weight,
                "last": np.array([-1], np.int64),
                "time": np.array([1], np.int64),
            }.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "tokens.onnx")
    signature = Signature(
        {"ids": TensorType((1, 6), "int64"), "mask": TensorType((1, 6), "int64")},
        {"hidden": TensorType((1, 6, 16), "float32"), "pooled": TensorType((1, 16), "float32")},
    )
    subject, *peers = peer_contenders(
        ["onnxruntime", "openvino"],
        source=tmp_path / "tokens.onnx",
        signature=signature,
        calibration=None,
        scratch=tmp_path,
    )
    wanted = [("onnxruntime", "int8"), ("onnxruntime", "int8 dynamic"), ("openvino", "float32")]
    peers = [peer for peer in peers if (peer.name, peer.precision) in wanted]
    sets = [sample_inputs(signature, seed) for seed in range(2)]
    report = bench(subject, peers, sets, description="tokens", turns=QUICK)
    entries = {(entry["name"], entry["precision"]): entry for entry in report["peers"]}
    assert list(entries) == wanted
    for key in wanted[:2]:
        assert ran(entries[key]) > 25
    float32 = entries[wanted[2]]["agreement"]
    assert float32["identical"] or float32["sqnr_db"] > 90
