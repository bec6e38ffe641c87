"""The real nginx, run with the configuration that a document shows."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.host import TIMEOUT_S
from tests.support.needs import program

_FENCE = re.compile(r"^```nginx\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MAIN = """
daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""


def shown_servers(document: Path) -> list[str]:
    """The nginx configurations that a document shows, in its order."""
    return _FENCE.findall(document.read_text())


@contextmanager
def running_nginx(
    server: str, folder: Path, changes: Mapping[str, str], *, workers: int = 1
) -> Iterator[int]:
    """Run nginx with a shown ``server`` block on a free port, which is given.

    ``changes`` replaces texts that must stand in the block, such as its root.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # nginx takes it as it is: a worker that waits in accept(2) for a connection that another
        # one got would leave all of its own unread.
        listening.settimeout(0)
        port = listening.getsockname()[1]
        for old, new in {"listen 80;": f"listen 127.0.0.1:{port};", **changes}.items():
            assert old in server, f"the document no longer shows {old!r}"
            server = server.replace(old, new)
        main = folder / "nginx.conf"
        # A worker of another user could not read the temporary folder of a test.
        user = "user root;" if os.geteuid() == 0 else ""
        words = {"folder": folder, "user": user, "server": server, "workers": workers}
        main.write_text(_MAIN.format(**words))
        command = (program("nginx"), "-e", str(folder / "error.log"), "-c", str(main))
        # nginx takes over a socket that listens already; so no port can be lost to somebody else.
        environment = {**os.environ, "NGINX": f"{listening.fileno()};"}
        with subprocess.Popen(command, pass_fds=[listening.fileno()], env=environment) as process:
            try:
                yield port
            finally:
                process.terminate()
                process.wait(TIMEOUT_S)
    log = (folder / "error.log").read_text()
    assert not re.search(r"\[(warn|crit|alert|emerg)\]", log), log
