"""A second process that makes small files: half of what unpacking them takes is the kernel's time for each.

Threads would not help, since Python hands its lock over too slowly for calls as short as these.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import subprocess
import sys
from collections import deque
from pathlib import Path

from context_sources.file_program import LENGTH

PROGRAM = Path(__file__).with_name("file_program.py")
MOST_FILES, MOST_BYTES = 256, 1 << 18  # of a batch
MOST_BATCHES = 4  # under way
PIPE_SIZE = 1 << 20  # what an ordinary user may ask for

SmallFile = tuple[bytes, bytes, int, int, bytes]  # directory, name, mode, mtime in nanoseconds, content


class SecondWriter:
    """Makes files below the directory `root`, in the order in which they are given; `changed` has the bits of a mode
    that the system does not give new files.

    A file that cannot be made is no error here: `give` and `settle` return it and all that were to follow, and this
    writer is over. Raises OSError when the process cannot be started.
    """

    def __init__(self, root: int, changed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(PROGRAM), str(root), str(changed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={},
            pass_fds=[root],
        )
        assert self._process.stdin is not None
        try:
            fcntl.fcntl(self._process.stdin, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        except OSError:
            pass  # all pipes of a user together have a limit; a small one only makes this wait
        self._batch: list[SmallFile] = []
        self._size = 0
        self._sent: deque[list[SmallFile]] = deque()
        self._under_way: set[bytes] = set()

    def is_under_way(self, path: bytes) -> bool:
        """Whether `path` was given and may not be there yet."""
        return path in self._under_way

    def give(self, file: SmallFile) -> list[SmallFile]:
        """Have `file` made, whose directory is there. What is returned is for the caller to make."""
        self._batch.append(file)
        self._under_way.add(file[0] + b"/" + file[1])
        self._size += len(file[4])
        if len(self._batch) < MOST_FILES and self._size < MOST_BYTES:
            return []
        sent = self._send()
        while sent and len(self._sent) > MOST_BATCHES:
            sent = self._take_answer()
        return [] if sent else self._left()

    def settle(self) -> list[SmallFile]:
        """Return when everything that was given is there; what is returned is for the caller to make."""
        sent = self._send() if self._batch else True
        while sent and self._sent:
            sent = self._take_answer()
        return [] if sent else self._left()

    def close(self) -> None:
        """End the process; files that are under way may be made or not."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _send(self) -> bool:
        """Send the batch. False when nobody takes it."""
        batch, self._batch, self._size = self._batch, [], 0
        self._sent.append(batch)
        data = marshal.dumps(batch)
        rest = memoryview(len(data).to_bytes(LENGTH, "big") + data)
        assert self._process.stdin is not None
        try:
            while rest:
                rest = rest[os.write(self._process.stdin.fileno(), rest) :]
        except OSError:
            return False
        return True

    def _take_answer(self) -> bool:
        """Wait until the oldest batch is done. False when not all of it was made, or the process is gone."""
        assert self._process.stdout is not None
        answer = self._process.stdout.read(LENGTH)
        made = int.from_bytes(answer or b"", "big")
        batch = self._sent[0]
        self._under_way.difference_update([file[0] + b"/" + file[1] for file in batch[:made]])
        if made < len(batch):
            self._sent[0] = batch[made:]
            return False
        self._sent.popleft()
        return True

    def _left(self) -> list[SmallFile]:
        """What is not made, once the process is at its end."""
        while self._sent and self._take_answer():
            pass
        left = [file for batch in (*self._sent, self._batch) for file in batch]
        self._sent.clear()
        self._batch, self._under_way = [], set()
        return left
