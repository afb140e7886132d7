"""Image configurations: how to run an image, and how it came to be (OCI image-spec, config.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from builder.errors import ImageError
from builder.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """Docker's health check. Durations in nanoseconds; 0 inherits and is not written."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """One step of an image's history. `created` is RFC 3339 or ""."""

    created_by: str = ""
    created: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True)
class ExecConfig:
    """The `config` object. None and () differ where Docker makes them differ: `cmd=()` is `CMD []`."""

    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    user: str = ""
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    stop_signal: str = ""
    on_build: tuple[str, ...] = ()
    args_escaped: bool = False
    unknown: Mapping[str, Any] = field(default_factory=dict, hash=False)  # kept as the base image had it

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ExecConfig:
        """Raises ImageError when a known member has the wrong shape."""
        try:
            rest = dict(value)
            take = rest.pop
            health = take("Healthcheck", None)
            return cls(
                env=_strings(take("Env", None)) or (),
                cmd=_strings(take("Cmd", None)),
                entrypoint=_strings(take("Entrypoint", None)),
                user=take("User", None) or "",
                working_dir=take("WorkingDir", None) or "",
                labels=MappingProxyType(dict(take("Labels", None) or {})),
                volumes=tuple(sorted(take("Volumes", None) or ())),
                exposed_ports=tuple(sorted(take("ExposedPorts", None) or ())),
                shell=_strings(take("Shell", None)) or (),
                healthcheck=Healthcheck(
                    tuple(health.get("Test") or ()),
                    health.get("Interval", 0),
                    health.get("Timeout", 0),
                    health.get("StartPeriod", 0),
                    health.get("StartInterval", 0),
                    health.get("Retries", 0),
                )
                if health
                else None,
                stop_signal=take("StopSignal", None) or "",
                on_build=_strings(take("OnBuild", None)) or (),
                args_escaped=bool(take("ArgsEscaped", None)),
                unknown=MappingProxyType(rest),
            )
        except (TypeError, AttributeError, ValueError) as error:
            raise ImageError(f"malformed image config: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """As BuildKit writes it: empty members are absent."""
        value: dict[str, Any] = dict(self.unknown)
        _put(value, "User", self.user)
        _put(value, "ExposedPorts", {port: {} for port in self.exposed_ports})
        _put(value, "Env", list(self.env))
        if self.entrypoint is not None:
            value["Entrypoint"] = list(self.entrypoint)
        if self.cmd is not None:
            value["Cmd"] = list(self.cmd)
        if self.healthcheck:
            value["Healthcheck"] = _health_json(self.healthcheck)
        _put(value, "ArgsEscaped", self.args_escaped)
        _put(value, "Volumes", {path: {} for path in self.volumes})
        _put(value, "WorkingDir", self.working_dir)
        _put(value, "OnBuild", list(self.on_build))
        _put(value, "Labels", dict(self.labels))
        _put(value, "StopSignal", self.stop_signal)
        _put(value, "Shell", list(self.shell))
        return value

    def environment(self) -> dict[str, str]:
        """Env as a mapping; an entry without `=` is a variable with an empty value."""
        return dict(entry.partition("=")[::2] for entry in self.env)

    def with_env(self, key: str, value: str) -> ExecConfig:
        """With `key` replaced in place, or appended."""
        entry = f"{key}={value}"
        if any(old.partition("=")[0] == key for old in self.env):
            return replace(self, env=tuple(entry if old.partition("=")[0] == key else old for old in self.env))
        return replace(self, env=(*self.env, entry))


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The whole configuration object. `unknown` holds top-level members that Limpet does not interpret."""

    platform: Platform
    exec: ExecConfig = ExecConfig()
    diff_ids: tuple[str, ...] = ()
    history: tuple[History, ...] = ()
    created: str = ""  # RFC 3339
    author: str = ""
    unknown: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ImageConfig:
        """Raises ImageError when it is not an image configuration."""
        try:
            rest = dict(value)
            take = rest.pop
            rootfs = take("rootfs", None) or {}
            return cls(
                platform=Platform(
                    take("os"), take("architecture"), take("variant", "") or "", take("os.version", "") or ""
                ),
                exec=ExecConfig.from_json(take("config", None) or {}),
                diff_ids=tuple(rootfs.get("diff_ids") or ()),
                history=tuple(
                    History(
                        item.get("created_by") or "",
                        item.get("created") or "",
                        item.get("comment") or "",
                        item.get("author") or "",
                        bool(item.get("empty_layer")),
                    )
                    for item in take("history", None) or ()
                ),
                created=take("created", None) or "",
                author=take("author", None) or "",
                unknown=MappingProxyType(rest),
            )
        except KeyError as error:
            raise ImageError(f"image config has no {error}") from error
        except (TypeError, AttributeError, ValueError) as error:
            raise ImageError(f"malformed image config: {error}") from error

    def with_history_times(self) -> ImageConfig:
        """With a time in every history entry, and `created` the last of them, as BuildKit gives them.

        Layers bring their times. An entry without one gets the time of the first new layer when it comes before
        that, else the time of the entry before it; without any new layer, of the last entry that has one.
        """
        missing = next((n for n, item in enumerate(self.history) if not item.created), len(self.history))
        later = (item.created for item in self.history[missing:] if item.created)
        created = next(later, self.history[missing - 1].created if missing else "")
        filled: list[History] = []
        for number, item in enumerate(self.history):
            if item.created:
                created = item.created if number > missing else created
                filled.append(item)
            else:
                filled.append(replace(item, created=created))
        return replace(self, history=tuple(filled), created=filled[-1].created if filled else self.created)

    def to_json(self) -> dict[str, Any]:
        """The JSON object, members in the specification's order."""
        value: dict[str, Any] = {}
        _put(value, "created", self.created)
        _put(value, "author", self.author)
        value["architecture"] = self.platform.architecture
        value["os"] = self.platform.os
        _put(value, "os.version", self.platform.os_version)
        _put(value, "variant", self.platform.variant)
        value["config"] = self.exec.to_json()
        value["rootfs"] = {"type": "layers", "diff_ids": list(self.diff_ids)}
        value["history"] = [_history_json(item) for item in self.history]
        for key, member in self.unknown.items():
            value.setdefault(key, member)
        return value

    def to_bytes(self) -> bytes:
        """Canonical bytes: the same config always has the same digest."""
        return json.dumps(self.to_json(), separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogateescape")


def _strings(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{value!r} is not a list of strings")
    return tuple(value)


def _put(value: dict[str, Any], key: str, member: Any) -> None:
    if member:
        value[key] = member


def _health_json(health: Healthcheck) -> dict[str, Any]:
    value: dict[str, Any] = {}
    _put(value, "Test", list(health.test))
    _put(value, "Interval", health.interval)
    _put(value, "Timeout", health.timeout)
    _put(value, "StartPeriod", health.start_period)
    _put(value, "StartInterval", health.start_interval)
    _put(value, "Retries", health.retries)
    return value


def _history_json(item: History) -> dict[str, Any]:
    value: dict[str, Any] = {}
    _put(value, "created", item.created)
    _put(value, "author", item.author)
    _put(value, "created_by", item.created_by)
    _put(value, "comment", item.comment)
    _put(value, "empty_layer", item.empty_layer)
    return value
