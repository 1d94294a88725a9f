"""The server for processes of this machine: HTTP on a Unix socket that only the node's own user may connect to."""

import threading
from pathlib import Path

from uvicorn import Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from orthanc_ledger import local_socket
from orthanc_ledger.errors import ServiceAway
from orthanc_ledger.web.serving import App, make_server


def serve(app: App, path: Path, stop: threading.Event) -> None:
    """Serve an application on a socket until ``stop`` is set. Raises ServiceAway when it cannot be listened on now."""
    try:
        door = local_socket.listen(path)
    except OSError as error:
        raise ServiceAway(f"{path} cannot be listened on: {error.strerror}") from error
    server = make_server(app, H11Protocol, None)
    threading.Thread(target=_attend, args=(server, stop), daemon=True, name="attend").start()
    try:
        server.run([door])
    finally:
        stop.set()


def _attend(server: Server, stop: threading.Event) -> None:
    stop.wait()
    server.should_exit = True
