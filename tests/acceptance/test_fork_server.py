"""Rows that fork children follow each other in one process, and each finds its own modules imported."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from acceptance.fork_server import fork_server


def _tell(connection: Connection) -> None:
    connection.send("symtable" in sys.modules)


def _imported(preload: list[str]) -> bool:
    context = fork_server(preload)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(sender,))
    process.start()
    try:
        assert receiver.poll(60)
        return bool(receiver.recv())
    finally:
        process.join()


def test_a_server_with_other_modules_makes_room() -> None:
    assert [_imported(preload) for preload in ([], ["symtable"], ["symtable"], [])] == [
        False,
        True,
        True,
        False,
    ]
