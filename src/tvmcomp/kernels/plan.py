"""The plan of a dot-product kernel: its blocking, chosen by rules from the convolution's shape and the ISA."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tvmcomp.kernels.geometry import Geometry
from tvmcomp.kernels.mac import Mac
from tvmcomp.kernels.vector import Isa

__all__ = ["Plan", "Split", "choose_plan"]


class Split(Enum):
    """The outermost loop, which is the one threads share."""

    CHANNELS = "channels"  # each weight is read by one thread, all activations by every thread
    ROWS = "rows"  # chunks of rows of blocks; all weights are read by every thread


@dataclass(frozen=True)
class Plan:
    """The knobs of one kernel; the tuner's search space.

    tile:     output pixels of one block, (height, width).
    vectors:  vectors of output channels of one block; tile * vectors accumulators live in registers.
    unroll:   multiply-accumulate steps per body of the inner loop.
    split:    the outermost loop.
    chunk:    rows of blocks that one block of weights serves before the next; for Split.ROWS only.
    prefetch: fetch the next block of weights into L2 while this one is in use.
    """

    tile: tuple[int, int]
    vectors: int
    unroll: int
    split: Split
    chunk: int = 1
    prefetch: bool = False


# Pixels of a block by its vectors of output channels. Weights, one broadcast and the accumulators share the
# registers; ten accumulators hide the latency of two multiply-accumulate units, and a block of few vectors
# reads the fewest weights from L2. Measured on an Intel core with two 512-bit units.
_PIXELS_32_REGISTERS = {1: 28, 2: 14, 3: 7, 4: 6, 8: 3}
_PIXELS_16_REGISTERS = {1: 10, 2: 6, 4: 3}
# Weights up to this size are used whole for every chunk of rows; larger ones, too, where x would not stay in L2
# between blocks of output channels, but they do.
_RESIDENT_BYTES = 64 * 1024
_HALF_L2_BYTES = 1024 * 1024
# Rows of blocks that share a pass over the weights, as long as this many chunks remain for the threads.
_CHUNK, _ITEMS = 4, 16
# Fewer blocks of output channels than this would leave threads idle.
_SHARED_BLOCKS = 4


def choose_plan(geometry: Geometry, isa: Isa, mac: Mac) -> Plan:
    """The rules."""
    total = -(-geometry.outputs // isa.lanes)
    few = isa.lanes == 8 or not isa.fma
    pixels = _PIXELS_16_REGISTERS if few else _PIXELS_32_REGISTERS
    vectors = _vectors(total, geometry.pixels, pixels, wide=mac.prepares)
    tile = _tile(geometry, pixels[vectors])
    rows = geometry.batch * -(-geometry.height // tile[0])
    blocks = rows * -(-geometry.width // tile[1])
    steps = 2 if tile[0] * tile[1] * vectors >= 16 else 4
    itemsize = 4 if mac.acc == "float32" else 1
    weight_bytes = geometry.depth * geometry.outputs * geometry.groups * itemsize
    shared = geometry.groups * -(-total // vectors)
    streamed = geometry.pixels * geometry.pixel.x > _HALF_L2_BYTES > weight_bytes
    if weight_bytes < _RESIDENT_BYTES or streamed or shared < _SHARED_BLOCKS:
        chunk = min(_CHUNK, max(1, rows // _ITEMS))
        return Plan(tile, vectors, steps, Split.ROWS, chunk)
    return Plan(tile, vectors, steps, Split.CHANNELS, prefetch=blocks > 1)


def _vectors(total: int, available: int, pixels: dict[int, int], *, wide: bool) -> int:
    """Two vectors, or three where two would leave one alone; four where broadcasts are dear; more where so
    few pixels leave registers free.
    """
    usual = 3 if total % 2 and total % 3 == 0 and 3 in pixels else min(2, total)
    if wide and total >= 4:
        usual = 4
    covering = [v for v, most in pixels.items() if v != 3 and v <= total and available <= most]
    return max([usual, *covering])


def _tile(geometry: Geometry, most: int) -> tuple[int, int]:
    """The largest rectangle of up to `most` pixels that cuts rows, or columns of rows, evenly."""
    height, width = geometry.height, geometry.width
    if width > most:
        return 1, -(-width // -(-width // most))
    rows = min(height, most // width)
    return -(-height // -(-height // rows)), width
