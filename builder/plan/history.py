"""History entries, letter for letter as BuildKit writes them.

The texts are Go's: `%q` for CMD and ENTRYPOINT, `%v` for lists and for the health check.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from builder.dockerfile.instructions import Healthcheck
from builder.dockerfile.quoting import quote
from builder.oci.config import History

COMMENT = "buildkit.dockerfile.v0"
_LAYER_SUFFIX = " # buildkit"


def timestamp(epoch: int) -> str:
    """Seconds since 1970 as RFC 3339 in UTC."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def entry(created_by: str, epoch: int | None, *, layer: bool = False, suffix: bool = False) -> History:
    """A new history entry; `layer` when the step makes a layer, `suffix` for the mark of RUN, COPY and ADD."""
    return History(
        created_by=created_by + (_LAYER_SUFFIX if suffix else ""),
        created="" if epoch is None else timestamp(epoch),
        comment=COMMENT,
        empty_layer=not layer,
    )


def pairs(keyword: str, entries: Iterable[tuple[str, str]]) -> str:
    """ENV and LABEL: `KEYWORD k=v k2=v2`, without quotes."""
    return " ".join((keyword, *(f"{key}={value}" for key, value in entries)))


def arguments(entries: Iterable[tuple[str, str | None]]) -> str:
    """ARG: values only where there are any."""
    return " ".join(("ARG", *(key if value is None else f"{key}={value}" for key, value in entries)))


def command(keyword: str, args: Sequence[str]) -> str:
    """CMD and ENTRYPOINT: Go's `%q` of a list."""
    return f"{keyword} [{' '.join(quote(arg) for arg in args)}]"


def words(keyword: str, items: Iterable[str]) -> str:
    """EXPOSE, VOLUME and SHELL: Go's `%v` of a list."""
    return f"{keyword} [{' '.join(items)}]"


def run(argv: Sequence[str], args: Mapping[str, str]) -> str:
    """RUN: the number of declared ARGs, each with its value, then the command."""
    declared = [f"|{len(args)}", *(f"{name}={value}" for name, value in args.items())] if args else []
    return "RUN " + " ".join((*declared, *argv))


def copy(
    keyword: str,
    sources: Sequence[str],
    heredocs: Sequence[str],
    destination: str,
    *,
    parents: bool = False,
    chown: str = "",
    chmod: str = "",
) -> str:
    """COPY and ADD: only these flags, and heredocs after the paths."""
    flags = ["--parents"] if parents else []
    if chown:
        flags.append(f"--chown={chown}")
    if chmod:
        flags.append(f"--chmod={chmod}")
    return " ".join((keyword, *flags, *sources, *(f"<<{name}" for name in heredocs), destination))


def healthcheck(check: Healthcheck) -> str:
    """HEALTHCHECK: Go's `%+v` of the structure."""
    return (
        f"HEALTHCHECK {{Test:[{' '.join(check.test)}] Interval:{duration(check.interval)} "
        f"Timeout:{duration(check.timeout)} StartPeriod:{duration(check.start_period)} "
        f"StartInterval:{duration(check.start_interval)} Retries:{check.retries}}}"
    )


def duration(nanoseconds: int) -> str:
    """Go's `time.Duration.String`: `1h2m3.5s`, `1.5ms`, `0s`. `nanoseconds` is not negative."""
    if nanoseconds == 0:
        return "0s"
    for unit, size in (("ns", 1_000), ("µs", 1_000_000), ("ms", 1_000_000_000)):
        if nanoseconds < size:
            return _decimal(nanoseconds, size // 1_000) + unit
    minutes, rest = divmod(nanoseconds, 60 * 1_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = _decimal(rest, 1_000_000_000) + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(value: int, unit: int) -> str:
    """value / unit, exactly, without trailing zeros."""
    whole, fraction = divmod(value, unit)
    if not fraction:
        return str(whole)
    digits = str(fraction).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"
