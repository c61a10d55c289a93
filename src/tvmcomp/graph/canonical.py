"""The canonical graph: what every later room may rely on, whichever framework the model came from.

- Zero padding is part of the convolution after it; batch normalisation is part of the weights before it, else
  one multiply and one add. Dropout, identities and reshapes that do nothing are gone; arithmetic on parameters
  alone is done.
- Images are NHWC, with no permutation between convolutions; `main` keeps the signature the user knows, so
  there is one `permute_dims` after a 4-D input and one before a 4-D output or a reshape that mixes axes.
- One-dimensional convolutions and pools work on images one pixel high. A transposed convolution with a stored
  weight is an ordinary one to all phases of its stride, and a pixel shuffle (reshape, permute_dims, reshape).
- Convolution: `nn.conv2d(x, w, data_layout="NHWC", kernel_layout="OHWI")`, w: [O, KH, KW, I/groups].
  Dense: `matmul(x, w)`, w: [K, N]. Either is followed by `add(y, b)` with b: [C] if it has a bias.
- Attention: `matmul(q, k)`, k: [..., K, N], then `multiply(y, scale)`, `add(y, mask)`, `nn.softmax`, `matmul(p, v)`.
  Heads are batch axes; queries, keys and values are dense layers of their own.
- Global average pool: `mean(x, axis=[1, 2], keepdims=True)`. Activations: `nn.relu`, `clip`, `nn.silu`,
  hard sigmoid `clip(x + 3, 0, 6) / 6`, hard swish `x * (clip(x + 3, 0, 6) / 6)`.
- Indices of gathers and scatters are inside their axis (`graph/safe_indices.py`).
- Layer norm is `nn.layer_norm`, RMS norm `nn.rms_norm`; a split is slices, and so is a gather of constant indices
  that follow one another.
- The constant operand of a commutative operator comes second; scalars are inline constants, all else is a
  parameter. Every binding has a name of its own (`graph/names.py`).

For example, one residual block of a MobileNetV2 and its head:

    features.2.conv.0.0 = R.nn.conv2d(add_3, features.2.conv.0.0.weight, ..., data_layout="NHWC", kernel_layout="OHWI")
    add_4 = R.add(features.2.conv.0.0, features.2.conv.0.0.bias)         # bias: [C]
    clip_3 = R.clip(add_4, 0, 6)
    features.2.conv.1.0 = R.nn.conv2d(clip_3, features.2.conv.1.0.weight, ..., groups=48)
    add_5 = R.add(features.2.conv.1.0, features.2.conv.1.0.bias)
    ...
    add_9 = R.add(add_3, add_8)
    mean_1 = R.mean(add_9, axis=[1, 2], keepdims=True)
    reshape_1 = R.reshape(mean_1, [1, 1280])
    classifier.1 = R.matmul(reshape_1, classifier.1.weight)
    add_10 = R.add(classifier.1, classifier.1.bias)
"""

from __future__ import annotations

from tvmcomp.graph.attention import Attention
from tvmcomp.graph.dense import Dense
from tvmcomp.graph.fold_batch_norm import FoldBatchNorm
from tvmcomp.graph.fold_pad import FoldPad
from tvmcomp.graph.fold_params import FoldParams
from tvmcomp.graph.fold_scale import FoldScale
from tvmcomp.graph.lift_1d import Lift1d
from tvmcomp.graph.moves import Moves
from tvmcomp.graph.names import NameBindings
from tvmcomp.graph.nhwc import ToNHWC
from tvmcomp.graph.norms import Norms
from tvmcomp.graph.quantize_moves import QuantizeMoves
from tvmcomp.graph.quantized_params import QuantizedParams
from tvmcomp.graph.rewrite import Rewriter
from tvmcomp.graph.safe_coordinates import SafeCoordinates
from tvmcomp.graph.safe_indices import SafeIndices
from tvmcomp.graph.simplify import Simplify
from tvmcomp.graph.split_dense import SplitDense
from tvmcomp.graph.split_phases import SplitPhases
from tvmcomp.model import Model

__all__ = ["CANONICAL", "canonicalize", "is_canonical"]

_STEP = "canonicalize"

CANONICAL: tuple[type[Rewriter], ...] = (
    # One spelling for every operator.
    FoldParams,
    QuantizedParams,
    FoldParams,
    Simplify,
    Lift1d,
    Norms,
    # Layers with their weights.
    FoldPad,
    FoldBatchNorm,
    SplitPhases,
    Dense,
    SplitDense,
    Attention,
    # Layout, and what it leaves behind.
    ToNHWC,
    QuantizedParams,
    Simplify,
    FoldScale,
    Moves,
    Simplify,
    # Codes in place of floats wherever that changes no value.
    QuantizeMoves,
    # No index and no sample leaves its tensor.
    SafeIndices,
    SafeCoordinates,
    NameBindings,
)


def canonicalize(model: Model) -> Model:
    """The model in canonical form; numerically the same up to float32 rounding."""
    for rewriter in CANONICAL:
        model = rewriter(model).run()
    return model.with_step(_STEP)


def is_canonical(model: Model) -> bool:
    """Whether `canonicalize` has made this model, or what it was compressed from."""
    return _STEP in model.provenance.steps
