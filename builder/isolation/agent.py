"""An ssh agent's socket for one process: with the owner and mode asked for, whoever owns the agent's own."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.isolation import AgentSocket


@contextmanager
def agent_proxy(mount: AgentSocket, directory: Path) -> Iterator[Path]:
    """A listening socket in `directory` that passes every connection on to the agent, inside the context."""
    path = directory / "agent"
    listener = socket.socket(socket.AF_UNIX)
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{place}/agent")  # a socket's path must be shorter than 108 bytes
        os.chmod(path, mount.mode)
        if (mount.uid, mount.gid) != (0, 0):
            give(path, mount.uid, mount.gid)
        listener.listen()
    finally:
        os.close(place)
    threading.Thread(target=_accept, args=(listener, mount.source), daemon=True).start()
    try:
        yield path
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        listener.close()


def give(path: Path, uid: int, gid: int) -> None:
    """Change the owner; where the user namespace does not know the id, nobody can be it, and root has the file."""
    try:
        os.chown(path, uid, gid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def _accept(listener: socket.socket, agent: Path) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # closed
        threading.Thread(target=_serve, args=(client, agent), daemon=True).start()


def _serve(client: socket.socket, agent: Path) -> None:
    with client, socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(str(agent))
        except OSError:
            return  # ssh in the step says that its agent does not answer
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one side went away: so does the connection
