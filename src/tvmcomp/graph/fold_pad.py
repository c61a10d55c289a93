"""Zero padding before a convolution is the convolution's own."""

from __future__ import annotations

from tvm import relax
from tvm.ir import Expr

from tvmcomp.frontend.block import op_name
from tvmcomp.graph.rewrite import Rewriter

__all__ = ["FoldPad"]


class FoldPad(Rewriter):
    """conv2d(pad(x, 0), w, padding=p)  ->  conv2d(x, w, padding=p + the pad)     NCHW, H and W only"""

    STARTS_FROM = frozenset({"nn.pad"})

    def rewrite(self, call: relax.Call, name: str) -> Expr | None:
        if op_name(call) != "nn.conv2d" or call.attrs.data_layout != "NCHW":
            return None
        pad = self.definition(call.args[0], "nn.pad")
        if pad is None or pad.attrs.pad_mode != "constant" or float(pad.attrs.pad_value) != 0.0:
            return None
        width = [int(size) for size in pad.attrs.pad_width]
        if any(width[:4]) or min(width) < 0:
            return None
        top, bottom, left, right = width[4:]
        attrs = call.attrs
        padding = [int(size) for size in attrs.padding]
        return relax.op.nn.conv2d(
            pad.args[0],
            call.args[1],
            strides=[int(size) for size in attrs.strides],
            padding=[a + b for a, b in zip(padding, (top, left, bottom, right), strict=True)],
            dilation=[int(size) for size in attrs.dilation],
            groups=int(attrs.groups),
            out_dtype=attrs.out_dtype,
        )
