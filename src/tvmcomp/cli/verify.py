"""`tvmcomp verify`: every byte of an artifact, that this host can run it, and its golden run."""

from __future__ import annotations

from tvmcomp.cli.arguments import Artifact, existing
from tvmcomp.cli.screen import Answer, Screen, print_pairs

__all__ = ["verify"]


def verify(screen: Screen, artifact: Artifact) -> Answer:
    """Check an artifact and its test run.

    Every byte, that this host can run it, and that its golden run repeats; exit 4 if not.
    """
    from tvmcomp.runtime import verify as verify_artifact

    with screen.progress() as progress:
        progress("verify", 0, None)
        report = verify_artifact(existing(artifact))
    entries = {name: {"bytes": e.bytes, "sha256": e.sha256} for name, e in report.entries.items()}
    data = {
        "artifact": str(artifact),
        "verified": True,
        "bytes": report.bytes,
        "sha256": report.sha256,
        "entries": entries,
    }
    return Answer(
        data,
        lambda: print_pairs(
            [
                ("verified", artifact),
                ("sha256", report.sha256),
                ("bytes", f"{report.bytes:,} in {len(entries)} entries, all as sealed"),
                ("test run", "repeats on this machine"),
            ]
        ),
    )
