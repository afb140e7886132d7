"""Whether this kernel runs the programs of another platform.

Asked by running one: a program of a few instructions that exits with 0. What is registered with binfmt_misc cannot
be read inside most pods, which have no mount of it, but it works there.
"""

from __future__ import annotations

import os
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from builder.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class _Machine:
    """What an ELF file of an architecture is like; `code` is exit(0) (System V ABI supplements, syscall tables)."""

    number: int  # e_machine
    code: str  # hexadecimal
    bits: int = 64
    big_endian: bool = False
    flags: int = 0  # e_flags


_MACHINES = {
    "amd64": _Machine(62, "31ffb83c0000000f05"),  # xor edi,edi; mov eax,60; syscall
    "386": _Machine(3, "31dbb801000000cd80", bits=32),  # xor ebx,ebx; mov eax,1; int 0x80
    "arm64": _Machine(183, "000080d2a80b80d2010000d4"),  # mov x0,#0; mov x8,#93; svc #0
    "arm": _Machine(40, "0000a0e30170a0e3000000ef", bits=32, flags=0x05000200),  # mov r0,#0; mov r7,#1; svc 0
    "riscv64": _Machine(243, "130500009308d00573000000"),  # li a0,0; li a7,93; ecall
    "ppc64le": _Machine(21, "010000380000603802000044", flags=2),  # li r0,1; li r3,0; sc
    "s390x": _Machine(22, "a72900000a01", big_endian=True),  # lghi %r2,0; svc 1
}
_ADDRESS = 0x400000


def runs_programs_of(platform: Platform, work_dir: Path) -> bool:
    """Whether RUN on `platform` can work here. True also for an architecture that nothing is known about.

    `work_dir` is where a program can be written and run.
    """
    host = Platform.host()
    if platform.os != host.os:
        return False
    if platform.architecture == host.architecture or platform.architecture not in _MACHINES:
        return True
    program = work_dir / f"program-{platform.architecture}"
    program.write_bytes(program_of(platform.architecture))
    os.chmod(program, 0o700)
    try:
        return subprocess.run([program], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
    finally:
        program.unlink()


def program_of(architecture: str) -> bytes:
    """An executable file that exits with 0. Raises KeyError for an architecture that nothing is known about."""
    return _elf(_MACHINES[architecture])


def _elf(machine: _Machine) -> bytes:
    """A program in one loaded segment: header, program header, code (System V ABI, chapters 4 and 5)."""
    order = ">" if machine.big_endian else "<"
    wide = machine.bits == 64
    header_size, segment_size = (64, 56) if wide else (52, 32)
    start = header_size + segment_size
    code = bytes.fromhex(machine.code)
    end = start + len(code)
    ident = b"\x7fELF" + bytes((2 if wide else 1, 2 if machine.big_endian else 1, 1)) + bytes(9)
    word = "Q" if wide else "I"
    header = struct.pack(
        f"{order}HHI{word}{word}{word}IHHHHHH",
        *(2, machine.number, 1, _ADDRESS + start, header_size, 0, machine.flags),
        *(header_size, segment_size, 1, 0, 0, 0),
    )
    loadable, read_execute, page = 1, 5, 0x10000
    if wide:
        segment = struct.pack(f"{order}IIQQQQQQ", loadable, read_execute, 0, _ADDRESS, _ADDRESS, end, end, page)
    else:
        segment = struct.pack(f"{order}IIIIIIII", loadable, 0, _ADDRESS, _ADDRESS, end, end, read_execute, page)
    return ident + header + segment + code
