"""A server to fork children from, which has imported what they need."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

__all__ = ["fork_server"]

_LOCK = threading.Lock()


def fork_server(preload: Sequence[str]) -> ForkServerContext:
    """A context whose next child is forked from a server with the modules `preload` imported.

    A process has one server, and one that runs takes no further modules: every child would import them
    itself, which takes seconds. So a server with others is ended first; its children run on.
    """
    context = multiprocessing.get_context("forkserver")
    server = forkserver._forkserver  # type: ignore[attr-defined]
    with _LOCK:
        if server._preload_modules != list(preload):
            server._stop()
            context.set_forkserver_preload(list(preload))
    return context
