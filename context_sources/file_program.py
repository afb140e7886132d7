"""The program that writes small files for a TreeWriter (see context_sources.second_writer), in a process of its own.

It is started as `python -I -S -B file_program.py ROOT CHANGED` and uses the standard library only.
ROOT is the descriptor of the directory below which it writes; CHANGED has the bits of a mode that the system does not
give new files. Standard input is a sequence of batches: a length of four bytes, and a marshalled list of files
(directory, name, mode, mtime in nanoseconds, content). After each batch it writes four bytes to standard output: how
many files of it were made. After a batch of which not all could be made it ends.

Directories are opened component by component without following symbolic links; a file that is there is an error.
"""

import marshal
import os
import sys

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
KEPT_DESCRIPTORS = 64
LENGTH = 4


class Writer:
    def __init__(self, root: int, changed: int) -> None:
        self._root = root
        self._changed = changed
        self._directories: dict[bytes, int] = {}

    def directory(self, path: bytes) -> int:
        """The descriptor of the directory `path`, "" for the root. Raises OSError."""
        if not path:
            return self._root
        known = self._directories.get(path)
        if known is None:
            above, _, last = path.rpartition(b"/")
            known = os.open(last, OPEN_DIRECTORY, dir_fd=self.directory(above))
            if len(self._directories) >= KEPT_DESCRIPTORS:
                for descriptor in self._directories.values():
                    os.close(descriptor)
                self._directories.clear()
            self._directories[path] = known
        return known

    def write(self, directory: bytes, name: bytes, mode: int, mtime: int, content: bytes) -> None:
        """Make one file. Raises OSError."""
        descriptor = os.open(name, CREATE_FILE, mode & 0o777, dir_fd=self.directory(directory))
        try:
            if mode & self._changed:
                os.fchmod(descriptor, mode)
            written = 0
            while written < len(content):
                written += os.write(descriptor, content[written:])
            os.utime(descriptor, ns=(mtime, mtime))
        finally:
            os.close(descriptor)


def main() -> None:
    writer = Writer(int(sys.argv[1]), int(sys.argv[2]))
    source = sys.stdin.buffer
    while length := source.read(LENGTH):
        batch = marshal.loads(source.read(int.from_bytes(length, "big")))  # noqa: S302 - from Limpet
        made = 0
        try:
            for file in batch:
                writer.write(*file)
                made += 1
        except (OSError, ValueError):
            pass  # Limpet makes this file again, and says what is wrong with it
        os.write(1, made.to_bytes(LENGTH, "big"))
        if made < len(batch):
            return


if __name__ == "__main__":
    main()
