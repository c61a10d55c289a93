"""The shape of a convolution as its kernel walks it: over output pixels, output channels and taps, in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from tvmcomp.graph.layers import Conv
from tvmcomp.kernels.layout import Layout

__all__ = ["Geometry", "Offsets", "geometry_of"]


@dataclass(frozen=True)
class Offsets:
    """A byte offset in each of the tensors a kernel walks at once: x, y, the residual, and x's scales per row."""

    x: int
    y: int
    r: int
    s: int = 0

    def __add__(self, other: Offsets) -> Offsets:
        return Offsets(self.x + other.x, self.y + other.y, self.r + other.r, self.s + other.s)

    def __mul__(self, factor: int) -> Offsets:
        return Offsets(self.x * factor, self.y * factor, self.r * factor, self.s * factor)


@dataclass(frozen=True)
class Geometry:
    """The shape of a convolution as its kernel walks it.

    batch, height, width: output pixels; `image`, `row`, `pixel` are the steps between them from `start`.
    taps:    (count, byte step in x) along the kernel's height and width.
    run:     contiguous elements of x per tap.
    outputs: output channels per group; `group` is the step between groups.
    room:    elements a kernel may store in one pixel of one group of y.
    """

    batch: int
    height: int
    width: int
    start: Offsets
    image: Offsets
    row: Offsets
    pixel: Offsets
    taps: tuple[tuple[int, int], tuple[int, int]]
    run: int
    groups: int
    group: Offsets
    outputs: int
    room: int

    @property
    def depth(self) -> int:
        """Products per output."""
        return self.taps[0][0] * self.taps[1][0] * self.run

    @property
    def pixels(self) -> int:
        return self.batch * self.height * self.width


def geometry_of(
    layer: Conv, x: Layout, y: Layout, residual: Layout | None, scales: Layout | None = None
) -> Geometry:
    """The walks of `layer` over these layouts; `scales` is that of x's scales where each row has its own.

    A 1x1 convolution over pixels without gaps is one column of all pixels of all images. Where pixels have no
    gap between their channels, a row of taps is one run.
    """
    outputs, kernel_h, kernel_w, inner = layer.weight.shape
    (step_h, step_w), (dilate_h, dilate_w) = layer.strides, layer.dilation
    r = residual or Layout(0, 0, 0, 0, 0)
    s = scales or Layout(0, 0, 0, 0, 0)
    pixel = Offsets(step_w * x.pixel, y.pixel, r.pixel, s.pixel)
    row = Offsets(step_h * x.row, y.row, r.row, s.row)
    image = Offsets(x.image, y.image, r.image, s.image)
    top, left = layer.pads[:2]
    start = Offsets(
        x.offset(0, -top, -left), y.offset(0, 0, 0), r.offset(0, 0, 0) if residual else 0
    )
    batch, height, width = y.batch, y.height, y.width
    if row == pixel * width and image == row * height:
        batch, height, width, row = 1, batch * height * width, 1, pixel
    taps = ((kernel_h, dilate_h * x.row), (kernel_w, dilate_w * x.pixel))
    run = inner
    if dilate_w == 1 and x.pitch == inner:
        taps, run = (taps[0], (1, 0)), kernel_w * inner
    per_group = outputs // layer.groups
    group = Offsets(
        inner * x.itemsize,
        per_group * y.itemsize,
        per_group * r.itemsize,
    )
    return Geometry(
        batch=batch,
        height=height,
        width=width,
        start=start,
        image=image,
        row=row,
        pixel=pixel,
        taps=taps,
        run=run,
        groups=layer.groups,
        group=group,
        outputs=per_group,
        room=y.pitch if layer.groups == 1 else per_group,
    )
