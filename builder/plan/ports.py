"""EXPOSE: `[ip:][host:]port[-end][/protocol]`. Only the container's ports count; the rest is checked and dropped."""

from __future__ import annotations

import ipaddress
import re

from builder.dockerfile.instructions import Expose
from builder.errors import DockerfileError
from builder.plan.findings import Findings

_PROTOCOLS = ("tcp", "udp", "sctp")
_NUMBER = re.compile(r"[0-9]+")
_LAST_PORT = 65535
_HINT = "write PORT, PORT-PORT or PORT/PROTOCOL, the protocol being tcp, udp or sctp"


def exposed_ports(spec: str, instruction: Expose, findings: Findings) -> list[str]:
    """`spec` as `80/tcp` entries, one for each port of a range. Raises DockerfileError."""
    *rest, container = spec.rsplit(":", 2)
    host = rest.pop() if rest else ""
    address = rest.pop() if rest else ""
    port, _, protocol = container.partition("/")
    try:
        if not port:
            raise ValueError("there is no port")
        lower = protocol.lower() or "tcp"
        if lower not in _PROTOCOLS:
            raise ValueError(f"{lower!r} is not a protocol")
        if address:
            _check_address(address)
        first, last = _port_range(port)
        _check_host_range(host, first, last)
    except ValueError as error:
        raise DockerfileError(f"EXPOSE {spec}: {error}", _HINT, location=instruction.location) from None
    if host or address:
        findings.report(
            "ExposeInvalidFormat",
            f"EXPOSE instruction should not define an IP address or host-port mapping, found '{spec}'",
            instruction,
        )
    if protocol != protocol.lower():
        findings.report(
            "ExposeProtoCasing",
            f"Defined protocol '{container}' in EXPOSE instruction should be lowercase",
            instruction,
        )
    return [f"{number}/{lower}" for number in range(first, last + 1)]


def _port_range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    numbers = [_port(first), _port(last if dash else first)]
    if numbers[1] < numbers[0]:
        raise ValueError(f"the range {text} ends before it begins")
    return numbers[0], numbers[1]


def _port(text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > _LAST_PORT:
        raise ValueError(f"{text!r} is not a port: 0 to {_LAST_PORT}")
    return int(text)


def _check_host_range(host: str, first: int, last: int) -> None:
    """A range of host ports must be as long as the container's, unless that is a single port."""
    if not host:
        return
    host_first, host_last = _port_range(host)
    if last != first and host_last - host_first != last - first:
        raise ValueError(f"{host} and {first}-{last} are not equally many ports")


def _check_address(address: str) -> None:
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        raise ValueError(f"{address!r} is not an IP address") from None
