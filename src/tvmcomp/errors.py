"""The one exception tree: what a user can do wrong, each with the exit code the CLI returns for it."""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "CalibrationError",
    "DataError",
    "IncompatibleHostError",
    "ModelError",
    "QuantizeError",
    "RecipeError",
    "TargetError",
    "TvmcompError",
    "UsageError",
    "VerificationError",
    "VtaError",
]


class TvmcompError(Exception):
    """A user-facing error: one line that says what is wrong, what was got, and the fix."""

    exit_code: int = 3

    def __str__(self) -> str:
        # A name from somebody's file may hold line breaks.
        return " ".join(super().__str__().splitlines())


class UsageError(TvmcompError):
    """The command line or a call's arguments contradict each other."""

    exit_code = 2


class ModelError(TvmcompError):
    """A model cannot be imported: unsupported operator, bad graph, missing external data."""


class DataError(TvmcompError):
    """Input or evaluation data has a wrong name, shape, dtype or value."""


class CalibrationError(DataError):
    """Calibration data is empty, not finite, or does not fit the model's inputs."""


class RecipeError(TvmcompError):
    """A recipe file is malformed or asks for something its target does not accept."""


class QuantizeError(RecipeError):
    """A quantization setting does not fit the tensor it is applied to."""


class TargetError(TvmcompError):
    """A target descriptor is unknown, malformed, or has no code path yet."""


class VtaError(TvmcompError):
    """A configuration, instruction stream or program of the VTA accelerator is wrong."""


class ArtifactError(TvmcompError):
    """An artifact file is damaged or is not an artifact at all."""

    exit_code = 4


class VerificationError(TvmcompError):
    """An artifact loads but its golden output or measurements do not reproduce."""

    exit_code = 4


class IncompatibleHostError(TvmcompError):
    """This host lacks a CPU feature, runtime or version the artifact requires."""

    exit_code = 5
