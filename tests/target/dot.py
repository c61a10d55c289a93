"""One vpdpbusd, the instruction that decides x86-avx512-vnni (TVMScript must live in a file)."""

from tvm.script import tirx as T


@T.prim_func(s_tir=True)
def dot(
    a: T.Buffer((64,), "uint8"), b: T.Buffer((64,), "int8"), c: T.Buffer((16,), "int32")
) -> None:
    c[T.ramp(0, 1, 16)] = T.call_llvm_pure_intrin(
        "int32x16",
        "llvm.x86.avx512.vpdpbusd.512",
        c[T.ramp(0, 1, 16)],
        a[T.ramp(0, 1, 64)],
        b[T.ramp(0, 1, 64)],
    )
