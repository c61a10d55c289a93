"""`Target`: one device as data, read from `targets/NAME.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tvmcomp.errors import TargetError
from tvmcomp.resources import data_folder
from tvmcomp.target.cpu import FEATURES, Caches
from tvmcomp.target.parse import Kind, Measure, parse_descriptor
from tvmcomp.target.scheme import OPS, RangeOf, Scheme

if TYPE_CHECKING:
    import tvm

__all__ = ["Target"]


@dataclass(frozen=True, eq=False)
class Target:
    """Facts of one device; policy asks these fields and methods, never the name.

    features:    exactly the instruction sets code for `mcpu` with `mattr` may use, in LLVM's names.
    mattr:       what to add to ("+x") or take from ("-x") the features of `mcpu`.
    caches:      bytes as one core sees them.
    sm:          compute capability of the GPU (87 is sm_87), None without one.
    detected_by: features that make a machine this target (with `vendor`, if not ""); none: never detected.
    unavailable: why nothing compiles for it yet; "" if it does.
    fusions:     pairs "a+b" between which no quantize/dequantize pair stands.
    schemes:     per operator what it accepts, the one it runs by default first.
    """

    name: str
    description: str
    kind: Kind
    triple: str
    mcpu: str
    mattr: tuple[str, ...]
    features: frozenset[str]
    cores: int
    caches: Caches
    channel_multiple: int
    layout: str
    measure: Measure
    sm: int | None
    detected_by: frozenset[str]
    vendor: str
    unavailable: str
    fusions: frozenset[str]
    schemes: Mapping[str, tuple[Scheme, ...]] = field(repr=False)

    @classmethod
    def load(cls, name_or_path: str | Path) -> Target:
        """ "host", the name of a shipped descriptor, or the path of a `.toml` file of your own."""
        if name_or_path == "host":
            from tvmcomp.target.detect import detect

            return detect().narrowed()
        if isinstance(name_or_path, Path) or name_or_path.endswith(".toml"):
            return cls.read(Path(name_or_path))
        if name_or_path in cls.names():
            return cls.read(data_folder("targets") / f"{name_or_path}.toml")
        close = get_close_matches(name_or_path, ("host", *cls.names()), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"use host, {', '.join(cls.names())}"
        raise TargetError(f"target {name_or_path!r} is unknown; {hint}")

    @classmethod
    def read(cls, file: Path) -> Target:
        """The descriptor in `file`."""
        return cls(**cast("dict[str, Any]", parse_descriptor(file)))

    @staticmethod
    def names() -> tuple[str, ...]:
        """Names of the shipped descriptors, sorted."""
        return tuple(sorted(file.stem for file in data_folder("targets").glob("*.toml")))

    @property
    def available(self) -> bool:
        return not self.unavailable

    @property
    def arch(self) -> str:
        """ "x86_64", "aarch64", or "" for an accelerator without a host processor."""
        return self.triple.partition("-")[0]

    def require_available(self) -> None:
        """Refuse a target whose code path does not exist yet."""
        if self.unavailable:
            raise TargetError(
                f"target {self.name!r} cannot be compiled for yet: {self.unavailable}; "
                "use --target host or an x86 descriptor"
            )

    def scheme_for(self, op: str) -> Scheme:
        """The integer scheme this target runs `op` in: what `recipe int8` means here."""
        schemes = self._schemes_of(op)
        if not schemes:
            able = ", ".join(sorted(self.schemes)) or "no operator"
            raise TargetError(f"target {self.name!r} has no integer {op}; it has {able}")
        return schemes[0]

    def match(self, op: str, scheme: Scheme) -> Scheme | None:
        """The first listed scheme of `op` that covers `scheme`, None if none does."""
        return next((mine for mine in self._schemes_of(op) if mine.covers(scheme)), None)

    def dynamic_scheme(self, op: str, per: RangeOf) -> Scheme | None:
        """The scheme this target runs `op` in where ranges of its input are taken at run time, None without one."""
        return next((mine for mine in self._schemes_of(op) if per in mine.dynamic), None)

    def accepts(self, op: str, scheme: Scheme) -> bool:
        """Whether `op` quantized as `scheme` runs on integers here."""
        return self.match(op, scheme) is not None

    def fuses(self, pattern: str) -> bool:
        """Whether no quantize/dequantize pair stands anywhere within "a+b" or a chain "a+b+c"."""
        ops = pattern.split("+")
        if len(ops) < 2:
            raise ValueError(f"fusion pattern {pattern!r} must join at least two operators by '+'")
        return all(f"{first}+{second}" in self.fusions for first, second in pairwise(ops))

    def to_dict(self) -> dict[str, object]:
        """JSON-able facts for manifests and provenance; schemes stay in the descriptor file."""
        return {
            "name": self.name,
            "kind": self.kind,
            "triple": self.triple,
            "mcpu": self.mcpu,
            "mattr": list(self.mattr),
            "features": sorted(self.features),
            "cores": self.cores,
            "sm": self.sm,
        }

    def tvm_target(self) -> tvm.target.Target:
        """TVM's target for this device, checked against what LLVM says `mcpu` and `mattr` give."""
        import tvm

        if self.kind == "vta":
            raise TargetError(
                f"target {self.name!r} is not a TVM target; it has its own code generator"
            )
        host = tvm.target.Target(self._llvm_config())
        self._check_features(host)
        if self.kind == "llvm":
            return host
        gpu = {"kind": "cuda", "arch": f"sm_{self.sm}", "host": self._llvm_config()}
        return tvm.target.Target(gpu)

    def _llvm_config(self) -> dict[str, object]:
        config: dict[str, object] = {
            "kind": "llvm",
            "mtriple": self.triple,
            "mcpu": self.mcpu,
            "num-cores": self.cores,
        }
        return {**config, "mattr": list(self.mattr)} if self.mattr else config

    def _check_features(self, host: tvm.target.Target) -> None:
        # LLVM aborts the process when a kernel asks for an instruction the target lacks, and an
        # artifact runs only where all `features` are: they must be what LLVM will use, no less, no more.
        from tvm.target.codegen import llvm_get_cpu_features, llvm_is_valid_cpu

        if not llvm_is_valid_cpu(self.mcpu, self.triple):
            raise TargetError(f"target {self.name!r}: mcpu {self.mcpu!r} is not one LLVM knows")
        given = {str(feature) for feature in llvm_get_cpu_features(host)} & FEATURES[self.arch]
        missing, extra = sorted(self.features - given), sorted(given - self.features)
        if missing:
            raise TargetError(
                f"target {self.name!r}: features lists {missing[0]!r}, mcpu {self.mcpu!r} lacks it; "
                f"remove it or add '+{missing[0]}' to mattr"
            )
        if extra:
            raise TargetError(
                f"target {self.name!r}: mcpu {self.mcpu!r} implies {extra[0]!r}, features lacks it; "
                f"list it or add '-{extra[0]}' to mattr"
            )

    def _schemes_of(self, op: str) -> tuple[Scheme, ...]:
        if op not in OPS:
            raise ValueError(f"operator {op!r} has no scheme table; use one of {', '.join(OPS)}")
        return self.schemes.get(op, ())
