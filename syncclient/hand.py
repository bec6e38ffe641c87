"""One process of a crew: ``python -m syncclient.hand``.

It reads tasks from its stdin, writes what came of each to its stdout (:mod:`syncclient.pipes`),
and ends when its stdin does, so it never outlives the client.
"""

from __future__ import annotations

import gc
import pickle
import sys

from syncclient.pipes import LENGTH, packed, write_all

_STDOUT = 1


def main() -> None:
    """Carry out one task after another: (function, argument) to (whether it worked, result)."""
    # Nothing here makes cycles, and to look for them took a twentieth of the time.
    gc.disable()
    source = sys.stdin.buffer
    while head := source.read(LENGTH.size):
        # (a pipe between two processes of this program)
        function, argument = pickle.loads(source.read(LENGTH.unpack(head)[0]))  # noqa: S301
        try:
            answer = packed((True, function(argument)))
        except Exception as error:  # noqa: BLE001 (it is raised where the result is asked for)
            answer = packed((False, error))
        write_all(_STDOUT, answer)


if __name__ == "__main__":
    main()
