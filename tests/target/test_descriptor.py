"""The shipped descriptors: what they accept, and that LLVM agrees with every feature they claim."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from tvmcomp.errors import TargetError
from tvmcomp.resources import data_folder
from tvmcomp.target import OPS, CodeRange, Scheme, Target, host_cpu

X86 = ("x86-avx2", "x86-avx512-vnni", "x86-sapphirerapids", "x86-zen4")
OTHERS = ("arm-cortex-a72", "arm-cortex-a76", "cuda-sm90", "jetson-orin", "vta-default")
CONV = Scheme(
    CodeRange("uint8", 0, 255),
    CodeRange("int8", -127, 127, symmetric=True),
    granularity=("axis",),
)
SIGNED_CONV = replace(CONV, activation=CodeRange("int8", -128, 127))
SEVEN_BIT = replace(CONV, weight=CodeRange("int8", -64, 63, symmetric=True))
FULL_RANGE = replace(CONV, weight=CodeRange("int8", -128, 127, symmetric=True))


def test_all_descriptors_are_there() -> None:
    assert Target.names() == tuple(sorted((*X86, *OTHERS)))


@pytest.mark.parametrize("name", Target.names())
def test_file_name_is_the_targets_name(name: str) -> None:
    assert Target.load(name).name == name
    assert (data_folder("targets") / f"{name}.toml").is_file()


@pytest.mark.parametrize("name", Target.names())
def test_what_it_lists_it_accepts(name: str) -> None:
    target = Target.load(name)
    assert target.schemes
    for op, schemes in target.schemes.items():
        assert target.scheme_for(op) == schemes[0]
        for scheme in schemes:
            assert target.accepts(op, scheme)


@pytest.mark.parametrize("name", X86)
def test_x86_runs_every_operator_on_integers(name: str) -> None:
    target = Target.load(name)
    assert set(target.schemes) == set(OPS)
    for op in ("conv2d", "depthwise_conv2d", "dense"):
        assert target.accepts(op, CONV)
        assert target.accepts(op, FULL_RANGE)
        assert not target.accepts(op, SIGNED_CONV)
        assert not target.accepts(op, replace(CONV, granularity=("group",)))
    for pattern in ("conv2d+bias+add+relu", "conv2d+clip", "dense+bias", "add+relu"):
        assert target.fuses(pattern)
    assert not target.fuses("conv2d+conv2d")
    assert not target.fuses("relu+add")


def test_avx2_runs_weights_that_do_not_saturate() -> None:
    target = Target.load("x86-avx2")
    weight = target.scheme_for("conv2d").weight
    assert weight == CodeRange("int8", -64, 63, symmetric=True)
    # vpmaddubsw sums two u8 x s8 products in int16.
    assert 2 * 255 * max(-weight.low, weight.high) < 1 << 15
    wide = target.match("conv2d", CONV)
    assert wide is not None
    assert "widening" in wide.note
    assert target.match("conv2d", SEVEN_BIT) == target.scheme_for("conv2d")


def test_a72_keeps_products_within_int16() -> None:
    target = Target.load("arm-cortex-a72")
    assert target.accepts("conv2d", SIGNED_CONV)
    full = replace(SIGNED_CONV, weight=FULL_RANGE.weight)
    assert not target.accepts("conv2d", full)
    assert Target.load("arm-cortex-a76").accepts("conv2d", full)


def test_vta_takes_powers_of_two_per_tensor() -> None:
    target = Target.load("vta-default")
    scheme = target.scheme_for("conv2d")
    assert scheme.power_of_two
    assert target.accepts("conv2d", scheme)
    assert not target.accepts("conv2d", replace(scheme, power_of_two=False))
    assert not target.accepts("conv2d", replace(scheme, granularity=("axis",)))
    with pytest.raises(
        TargetError, match="'vta-default' has no integer resize; it has add, conv2d"
    ):
        target.scheme_for("resize")


@pytest.mark.parametrize("method", ["scheme_for", "match", "accepts"])
def test_unknown_operator_is_our_bug(method: str) -> None:
    target = Target.load("x86-avx2")
    arguments = ("conv3d",) if method == "scheme_for" else ("conv3d", CONV)
    with pytest.raises(ValueError, match="operator 'conv3d' has no scheme table"):
        getattr(target, method)(*arguments)


def test_fusion_pattern_needs_two_operators() -> None:
    with pytest.raises(ValueError, match="at least two"):
        Target.load("x86-avx2").fuses("conv2d")


def test_unknown_name_suggests() -> None:
    with pytest.raises(TargetError, match="'x86-zen5' is unknown; did you mean 'x86-zen4'"):
        Target.load("x86-zen5")
    with pytest.raises(TargetError, match="use host, arm-cortex-a72, "):
        Target.load("toaster")


@pytest.mark.parametrize("name", X86)
def test_x86_is_available(name: str) -> None:
    Target.load(name).require_available()


@pytest.mark.parametrize("name", OTHERS)
def test_no_code_path_is_one_line_and_exit_3(name: str) -> None:
    target = Target.load(name)
    assert not target.available
    with pytest.raises(TargetError) as caught:
        target.require_available()
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith(f"target {name!r} cannot be compiled for yet: ")
    assert "\n" not in str(caught.value)


def test_facts_are_json() -> None:
    facts = json.loads(json.dumps(Target.load("jetson-orin").to_dict()))
    assert facts["mcpu"] == "cortex-a78ae"
    assert facts["sm"] == 87
    assert "dotprod" in facts["features"]


def test_targets_cross_process_borders() -> None:
    target = Target.load("host")
    assert pickle.loads(pickle.dumps(target)).to_dict() == target.to_dict()


def llvm_features(target: Target) -> set[str]:
    from tvm.target.codegen import llvm_get_cpu_features

    made = target.tvm_target()
    return {str(name) for name in llvm_get_cpu_features(made.host or made)}


@pytest.mark.parametrize("name", [name for name in Target.names() if name != "vta-default"])
def test_llvm_gives_exactly_the_claimed_features(name: str) -> None:
    from tvmcomp.target.cpu import FEATURES

    target = Target.load(name)
    assert llvm_features(target) & FEATURES[target.arch] == target.features


@pytest.mark.parametrize(
    ("name", "has", "lacks"),
    [
        ("x86-avx2", "avx2", "avx512f"),
        ("x86-avx512-vnni", "avx512vnni", "avx512bf16"),
        ("x86-zen4", "avx512bf16", "amx-int8"),
        ("x86-sapphirerapids", "amx-int8", "sse4a"),
        ("arm-cortex-a72", "neon", "dotprod"),
        ("arm-cortex-a76", "dotprod", "i8mm"),
    ],
)
def test_llvm_knows_the_deciding_feature(name: str, has: str, lacks: str) -> None:
    target = Target.load(name)
    features = llvm_features(target)
    assert has in features & target.features
    assert lacks not in features | target.features


def test_tvm_target_of_a_processor() -> None:
    made = Target.load("x86-avx512-vnni").tvm_target()
    assert made.kind.name == "llvm"
    assert made.attrs["mcpu"] == "cascadelake"
    assert made.attrs["mtriple"] == "x86_64-linux-gnu"
    assert made.attrs["num-cores"] == 4


def test_tvm_target_of_a_gpu_has_its_host() -> None:
    made = Target.load("jetson-orin").tvm_target()
    assert made.kind.name == "cuda"
    assert made.attrs["arch"] == "sm_87"
    assert made.host.attrs["mcpu"] == "cortex-a78ae"


def test_vta_is_no_tvm_target() -> None:
    with pytest.raises(TargetError, match="its own code generator"):
        Target.load("vta-default").tvm_target()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"features": frozenset({"avx512vnni"})},
            "features lists 'avx512vnni', mcpu 'x86-64-v3' lacks it; remove it or add '.avx512vnni'",
        ),
        (
            {"mattr": ("+avx512f",)},
            "mcpu 'x86-64-v3' implies 'avx512f', features lacks it; list it or add '-avx512f'",
        ),
        ({"mcpu": "pentium9"}, "mcpu 'pentium9' is not one LLVM knows"),
    ],
)
def test_false_claims_are_refused(changes: dict[str, object], message: str) -> None:
    target = replace(Target.load("x86-avx2"), **changes)
    with pytest.raises(TargetError, match=message):
        target.tvm_target()


@pytest.mark.isa("avx512vnni")
@pytest.mark.parametrize("name", ["host", "x86-avx512-vnni"])
def test_dot_product_compiles_and_runs(name: str) -> None:
    import numpy as np
    import tvm

    from target.dot import dot

    built = tvm.tirx.build(tvm.IRModule({"main": dot}), target=Target.load(name).tvm_target())
    a = np.arange(64, dtype=np.uint8) * 4
    b = np.arange(-32, 32, dtype=np.int8) * 4
    c = tvm.runtime.tensor(np.full(16, 7, np.int32))
    built["main"](tvm.runtime.tensor(a), tvm.runtime.tensor(b), c)
    products = a.astype(np.int32) * b.astype(np.int32)
    np.testing.assert_array_equal(c.numpy(), 7 + products.reshape(16, 4).sum(1))
    # A tuning flag of the mcpu that prefers 256-bit vectors must not halve ours.
    assert "zmm" in built.inspect_source("s")


def test_host_is_this_machine() -> None:
    target = Target.load("host")
    assert target.features == host_cpu().features
    assert target.cores == host_cpu().cores
    assert target.caches == host_cpu().caches


def test_user_file_by_path(tmp_path: Path) -> None:
    text = (data_folder("targets") / "x86-avx2.toml").read_text()
    file = tmp_path / "mine.toml"
    file.write_text(text.replace('"x86-avx2"', '"mine"'))
    assert Target.load(str(file)).name == "mine"
