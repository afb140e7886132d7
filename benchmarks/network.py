"""A TCP proxy on loopback: it counts bytes and, when asked to, is as slow as a network."""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.sharedctypes
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

_PIECE = 64 << 10
_IN_FLIGHT = 32  # pieces on the line, so that a sender feels the line's rate


@dataclass(frozen=True, slots=True)
class Line:
    """`round_trip` in seconds, `rate` in bytes a second and direction; 0: as fast as it goes."""

    round_trip: float = 0.0
    rate: float = 0.0


class Proxy:
    """A running proxy: its address, and how many bytes it moved."""

    def __init__(self, port: int, moved: multiprocessing.sharedctypes.Synchronized[int]) -> None:
        self.host = f"127.0.0.1:{port}"
        self._moved = moved

    @property
    def moved(self) -> int:
        return self._moved.value


@contextmanager
def proxy(target: str, line: Line) -> Iterator[Proxy]:
    """A proxy before `target` (HOST:PORT), in a process of its own."""
    moved = multiprocessing.Value("Q", 0)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_serve, args=(target, line, moved, there), daemon=True)
    process.start()
    try:
        yield Proxy(here.recv(), moved)
    finally:
        process.terminate()
        process.join()


def _serve(target: str, line: Line, moved: multiprocessing.sharedctypes.Synchronized[int], tell: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    asyncio.run(_listen(target, line, moved, tell))


async def _listen(
    target: str, line: Line, moved: multiprocessing.sharedctypes.Synchronized[int], tell: Connection
) -> None:
    host, _, port = target.rpartition(":")
    up, down = _Direction(line, moved), _Direction(line, moved)
    running: set[asyncio.Task[None] | None] = set()  # the loop itself keeps weak references only

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        running.add(task)
        await asyncio.sleep(line.round_trip)  # the handshake
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(up.carry(reader, far_writer), down.carry(far_reader, writer))
        for end in (far_writer, writer):
            end.close()
        running.discard(task)

    server = await asyncio.start_server(connection, "127.0.0.1", 0, limit=_PIECE)
    tell.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


class _Direction:
    """One direction of the line, which all connections share."""

    def __init__(self, line: Line, moved: multiprocessing.sharedctypes.Synchronized[int]) -> None:
        self._line = line
        self._moved = moved
        self._free_at = 0.0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_IN_FLIGHT)
        deliver = asyncio.create_task(self._deliver(queue, writer))
        try:
            while data := await reader.read(_PIECE):
                await queue.put((self._arrival(len(data)), data))
        except ConnectionError:
            pass  # the other side learns of it by the end
        await queue.put((0.0, b""))
        await deliver

    def _arrival(self, size: int) -> float:
        now = asyncio.get_running_loop().time()
        with self._moved.get_lock():
            self._moved.value += size
        if self._line.rate:
            self._free_at = max(now, self._free_at) + size / self._line.rate
            now = self._free_at
        return now + self._line.round_trip / 2

    async def _deliver(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                at, data = await queue.get()
                if not data:
                    break
                if (wait := at - loop.time()) > 0:
                    await asyncio.sleep(wait)
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except (ConnectionError, OSError):
            while (await queue.get())[1]:
                pass  # nobody listens any more
