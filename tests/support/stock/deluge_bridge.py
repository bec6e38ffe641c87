"""Calls a Deluge daemon: a JSON list of method and arguments a line in, a JSON object a line out.

    python3 deluge_bridge.py HOST PORT USER PASSWORD

Runs in the interpreter for which Debian has Deluge's modules, so it uses nothing of ours.
"""

from __future__ import annotations

import json
import sys

from deluge.ui.client import client
from twisted.internet import reactor, stdio
from twisted.protocols.basic import LineReceiver


class Lines(LineReceiver):  # type: ignore[misc]  # not here to be read
    """Standard input and output."""

    delimiter = b"\n"
    MAX_LENGTH = 2**26

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 (twisted's name)
        """One call."""
        method, *words = json.loads(line)
        section, name = method.split(".")
        call = getattr(getattr(client, section), name)(*words)
        call.addCallbacks(self._answer, self._fail)

    def _answer(self, result: object) -> None:
        self.sendLine(json.dumps({"result": result}).encode())

    def _fail(self, failure: object) -> None:
        self.sendLine(json.dumps({"error": str(failure)}).encode())

    def connectionLost(self, _: object) -> None:  # noqa: N802 (twisted's name)
        """The test has ended."""
        reactor.stop()


host, port, user, password = sys.argv[1:]
connected = client.connect(host, int(port), user, password)
connected.addCallbacks(lambda _: stdio.StandardIO(Lines()), lambda why: sys.exit(str(why)))
reactor.run()
