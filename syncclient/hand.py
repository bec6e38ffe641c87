"""One process of a crew: ``python -m syncclient.hand``.

It reads pickled tasks from its stdin, writes what came of each to its stdout, and ends when its
stdin does, so it never outlives the client.  Pickle is safe here: both ends are this program.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys

LENGTH = struct.Struct("<I")


def packed(message: object) -> bytes:
    """A message as it goes over a pipe: its length, then its pickle."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(data)) + data


def main() -> None:
    """Carry out one task after another: (function, argument) to (whether it worked, result)."""
    source = sys.stdin.buffer
    while head := source.read(LENGTH.size):
        # (a pipe between two processes of this program)
        function, argument = pickle.loads(source.read(LENGTH.unpack(head)[0]))  # noqa: S301
        try:
            answer = packed((True, function(argument)))
        except Exception as error:  # noqa: BLE001 (it is raised where the result is asked for)
            answer = packed((False, error))
        view = memoryview(answer)
        try:
            while view:
                view = view[os.write(1, view) :]
        except BrokenPipeError:
            return


if __name__ == "__main__":
    main()
