"""`--chmod`: octal, or symbolic in the grammar of BSD's setmode(3), relative to umask 022."""

from __future__ import annotations

from dataclasses import dataclass

from builder.errors import DockerfileError, Location

SETUID, SETGID, STICKY = 0o4000, 0o2000, 0o1000
STANDARD = 0o6777  # what `a` and an absent "who" mean: everything but the sticky bit
NOT_MASKED = 0o7777 & ~0o022

_WHO = {"a": STANDARD, "u": SETUID | 0o700, "g": SETGID | 0o070, "o": 0o007}
_SHIFT = {"u": 6, "g": 3, "o": 0}


@dataclass(frozen=True, slots=True)
class _Change:
    """One action: `+` and `-` with `bits`; `X` adds them if anyone may execute; u, g, o copy that class's bits."""

    action: str
    bits: int
    operator: str = ""  # of a copy: + - =
    classes: int = 0  # of a copy: the who it writes to


@dataclass(frozen=True, slots=True)
class Chmod:
    """A parsed `--chmod`: either `absolute`, or `changes` to the source's mode."""

    absolute: int | None = None
    changes: tuple[_Change, ...] = ()

    @property
    def created_directories(self) -> int:
        """Mode of the directories that COPY has to create on the way: the octal mode without its special bits."""
        return 0o755 if self.absolute is None else self.absolute & 0o777

    def apply(self, mode: int, *, directory: bool) -> int:
        """The mode of a copy of a file or directory that has `mode`."""
        if self.absolute is not None:
            return self.absolute
        executable = directory or mode & 0o111 != 0
        for change in self.changes:
            if change.action == "+" or (change.action == "X" and executable):
                mode |= change.bits
            elif change.action == "-":
                mode &= ~change.bits
            elif change.action in _SHIFT:
                mode = _copy_class(mode, change)
        return mode


def _copy_class(mode: int, change: _Change) -> int:
    """Write the permissions of one class of users to others: `g=u`, `o-g`."""
    value = mode >> _SHIFT[change.action] & 0o7
    for name, shift in _SHIFT.items():
        if not change.classes & 0o4 << _SHIFT[name]:
            continue
        if change.operator in "-=":
            mode &= ~((value if change.operator == "-" else 0o7) << shift & change.bits)
        if change.operator in "+=":
            mode |= value << shift & change.bits
    return mode


def parse(text: str, location: Location | None = None) -> Chmod:
    """Parse `text`; DockerfileError if it is neither an octal number up to 07777 nor symbolic."""
    if text[:1].isdigit():
        if all(char in "01234567" for char in text) and int(text, 8) <= 0o7777:
            return Chmod(absolute=int(text, 8))
        raise _invalid(text, location)
    changes = _parse_symbolic(text)
    if changes is None:
        raise _invalid(text, location)
    return Chmod(changes=tuple(changes))


def _invalid(text: str, location: Location | None) -> DockerfileError:
    return DockerfileError(
        f"--chmod={text} is not a mode",
        "give an octal number from 0 to 07777, as in --chmod=0644, or symbols, as in --chmod=u=rwX,go=rX",
        location=location,
    )


def _parse_symbolic(text: str) -> list[_Change] | None:
    changes: list[_Change] = []
    for clause in text.split(","):
        rest = clause.lstrip("augo")
        who = 0
        for char in clause[: len(clause) - len(rest)]:
            who |= _WHO[char]
        if not rest:
            return None
        while rest:
            operator, rest = rest[0], rest[1:]
            if operator not in "+-=":
                return None
            permissions = rest[: len(rest) - len(rest.lstrip("rstwXxugo"))]
            rest = rest[len(permissions) :]
            who = _actions(operator, who & ~STICKY, permissions, changes)
    return changes


def _actions(operator: str, who: int, permissions: str, changes: list[_Change]) -> int:
    """Append what `operator` with `permissions` does; the who it ends with (`t` widens it) is returned."""
    bits = conditional = 0
    cleared = operator != "="  # whether `=` has taken everything away already
    for char in permissions:
        if char in _SHIFT:  # letters before a copied class take effect before it
            if bits:
                _set(operator, who, bits, changes)
            if conditional:
                _set("X", who, conditional, changes)
            bits = conditional = 0
            cleared = True
            mask = 0o7777 if who else NOT_MASKED
            changes.append(_Change(char, mask, operator=operator, classes=who or 0o777))
        elif char in "st":
            if who == 0 or who & ~0o007:  # set-id and sticky mean nothing for others alone
                bits |= SETUID | SETGID if char == "s" else STICKY
                who |= STICKY if char == "t" else 0
        elif char == "X":
            conditional = 0o111 if operator != "-" else conditional
        else:
            bits |= {"r": 0o444, "w": 0o222, "x": 0o111}[char]
    if bits or not cleared:
        _set(operator, who, bits, changes)
    if conditional:
        _set("X", who, conditional, changes)
    return who


def _set(action: str, who: int, bits: int, changes: list[_Change]) -> None:
    if action == "=":
        changes.append(_Change("-", who or STANDARD))
        action = "+"
    changes.append(_Change(action, bits & (who or NOT_MASKED)))
