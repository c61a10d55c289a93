"""Which descriptor fits this machine, and which CPU flags decided it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvmcomp.errors import TargetError
from tvmcomp.target.cpu import CPU_FLAGS, HostCpu, host_cpu
from tvmcomp.target.descriptor import Target

__all__ = ["Detection", "detect"]


@dataclass(frozen=True, eq=False)
class Detection:
    """The best descriptor for one machine.

    flags_that_decided:      the /proc/cpuinfo flags it asks for beyond the next lesser descriptor.
    next_better:             the least of the descriptors above it, None at the top.
    missing_for_next_better: the flags this machine lacks for that one.
    """

    target: Target
    host: HostCpu
    flags_that_decided: tuple[str, ...]
    next_better: str | None
    missing_for_next_better: tuple[str, ...]

    def narrowed(self) -> Target:
        """The descriptor with this machine's own cores, caches and exactly its features."""
        mine, theirs = self.target.features, self.host.features
        changed = mine ^ theirs
        return replace(
            self.target,
            cores=self.host.cores,
            caches=self.host.caches,
            features=theirs,
            mattr=(
                *(item for item in self.target.mattr if item[1:] not in changed),
                *(f"+{feature}" for feature in sorted(theirs - mine)),
                *(f"-{feature}" for feature in sorted(mine - theirs)),
            ),
        )


def detect(host: HostCpu | None = None) -> Detection:
    """The most capable descriptor whose deciding features this machine (or `host`) has."""
    host = host or host_cpu()
    candidates = sorted(
        (
            target
            for target in map(Target.load, Target.names())
            if target.detected_by
            and target.arch == host.arch
            and target.vendor in ("", host.vendor)
        ),
        key=lambda target: (len(target.features), target.name),
    )
    fitting = [target for target in candidates if target.detected_by <= host.features]
    if not fitting:
        raise TargetError(_nothing_fits(host, candidates))
    best = fitting[-1]
    lesser = fitting[-2].detected_by if len(fitting) > 1 else frozenset[str]()
    better = next(iter(candidates[candidates.index(best) + 1 :]), None)
    wanted = better.detected_by - host.features if better else frozenset[str]()
    return Detection(
        target=best,
        host=host,
        flags_that_decided=_flags(best.detected_by - lesser, host.arch),
        next_better=better.name if better else None,
        missing_for_next_better=_flags(wanted, host.arch),
    )


def _flags(features: frozenset[str], arch: str) -> tuple[str, ...]:
    return tuple(flag for flag, feature in CPU_FLAGS[arch].items() if feature in features)


def _nothing_fits(host: HostCpu, candidates: list[Target]) -> str:
    if not candidates:
        return f"no descriptor covers this machine's architecture {host.arch!r}; name a --target"
    missing = _flags(candidates[0].detected_by - host.features, host.arch)
    return (
        f"this machine lacks {', '.join(missing)}, which the least descriptor "
        f"{candidates[0].name!r} needs; name a --target or write your own .toml"
    )
