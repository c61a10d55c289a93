"""Names of the operators that treat each element by itself."""

from __future__ import annotations

__all__ = ["BROADCAST", "UNARY"]

UNARY = (
    *("abs", "astype", "ceil", "clip", "cos", "erf", "exp", "floor", "isnan", "log", "logical_not"),
    *("negative", "round", "rsqrt", "sigmoid", "sign", "sin", "sqrt", "square", "tanh"),
    *("nn.gelu", "nn.gelu_tanh", "nn.leakyrelu", "nn.relu", "nn.selu", "nn.silu", "nn.softplus"),
)

# Operands of other shapes are repeated along axes of length 1.
BROADCAST = (
    *("add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "where", "mod"),
    *("equal", "not_equal", "greater", "greater_equal", "less", "less_equal"),
    *("logical_and", "logical_or", "floor_divide"),
)
