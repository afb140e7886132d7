"""RUN's mounts: from the fields of `--mount=...` to values, once variables can be expanded."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, cast

from builder.dockerfile.instructions import Mount
from builder.dockerfile.literals import parse_size, parse_truth, parse_unsigned
from builder.dockerfile.paths import clean
from builder.dockerfile.quoting import quote
from builder.dockerfile.suggestion import did_you_mean
from builder.errors import DockerfileError

MountType = Literal["bind", "cache", "tmpfs", "secret", "ssh"]
Sharing = Literal["shared", "private", "locked"]

_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARINGS = ("shared", "private", "locked")
_SYNONYMS = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_KEYS = (
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "readwrite",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
    *_SYNONYMS,
)
_OWNED = ("cache", "secret", "ssh")  # types whose files get an owner and a mode
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSpec:
    """A mount, complete and consistent.

    `target` is absolute; it is "" for a secret that is only a variable and for an ssh agent without a place of its
    own. `source` is as written (bind and cache: a path in `from_`). `from_` "" is the build context for bind, an empty
    directory for cache. `mode`, `uid` and `gid` are None unless given: 0755 for a new cache, 0400 for a secret, 0600
    for a socket; owner 0:0. `env` is None without `env=`, and may be "". `size` 0 is the kernel's default.
    """

    type: MountType
    target: str
    source: str = ""
    from_: str = ""
    id: str = ""
    sharing: Sharing = "shared"
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int = 0
    env: str | None = None
    required: bool = False
    read_only: bool = True


def resolve(mount: Mount, expand: Callable[[str], str], workdir: str) -> MountSpec:
    """`mount` with `expand` applied to every value but that of `from`; relative targets are below `workdir`.

    Raises DockerfileError, without location, for unknown keys, values that cannot be read, and keys that the type
    does not have.
    """
    fields = _fields(mount, expand)
    kind = cast(MountType, fields.texts.get("type", "bind"))
    _check(kind, fields)
    target = fields.texts.get("target", "")
    spec = MountSpec(
        type=kind,
        target=_absolute(target, workdir) if target or kind in ("bind", "cache", "tmpfs") else "",
        source=fields.texts.get("source", ""),
        from_="" if kind == "tmpfs" else fields.texts.get("from", ""),
        id=_identity(kind, fields.texts, target),
        sharing=cast(Sharing, fields.texts.get("sharing", "shared")),
        mode=fields.numbers.get("mode"),
        uid=fields.numbers.get("uid"),
        gid=fields.numbers.get("gid"),
        size=fields.numbers.get("size", 0),
        env=fields.texts.get("env"),
        required=fields.truths.get("required", False),
        read_only=fields.truths.get("readonly", kind not in ("cache", "tmpfs")),
    )
    if spec.target == "/":
        raise DockerfileError('invalid mount target "/"', "give it a target=PATH below the root")
    if kind == "secret" and not spec.target and spec.env is None:
        return replace(spec, target=f"/run/secrets/{posixpath.basename(spec.id.rstrip('/'))}")
    return spec


def _absolute(target: str, workdir: str) -> str:
    if target.startswith("/"):
        return target if clean(target) != "/" else "/"
    return clean(f"/{workdir}/{target}")


def _identity(kind: MountType, texts: Mapping[str, str], target: str) -> str:
    """Which cache, secret or agent is meant."""
    given = texts.get("id", "")
    if kind == "cache":
        return given or clean(target or ".")
    if kind == "secret":
        return texts.get("source", "") or given or posixpath.basename(target.rstrip("/"))
    if kind == "ssh":
        return given or "default"
    return given


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields by their long names, the last of a name winning. `readonly` has what `readwrite` said, too."""

    texts: dict[str, str]
    numbers: dict[str, int]
    truths: dict[str, bool]


def _fields(mount: Mount, expand: Callable[[str], str]) -> _Fields:
    fields = _Fields({}, {}, {})
    for written, unexpanded in mount.fields:
        key = _SYNONYMS.get(written, written)
        field = written if unexpanded is None else f"{written}={unexpanded}"
        if unexpanded is None and key not in ("readonly", "readwrite", "required"):
            raise DockerfileError(f"invalid field '{field}' must be a key=value pair", f"in --mount={mount.text}")
        if key not in _KEYS:
            raise DockerfileError(
                f"unexpected key '{written}' in '{field}'",
                did_you_mean(written, _KEYS) or f"known keys: {', '.join(_KEYS)}",
            )
        value = "true" if unexpanded is None else unexpanded if key == "from" else expand(unexpanded)
        _take(fields, key, value, written)
    return fields


def _take(fields: _Fields, key: str, value: str, written: str) -> None:
    """Put one field where it belongs. The type that counts for `required` and `size` is the one before them."""
    kind = fields.texts.get("type", "bind")
    if key == "type":
        fields.texts[key] = _one_of("mount type", value, _TYPES)
    elif key == "sharing":
        fields.texts[key] = _one_of("sharing value", value, _SHARINGS)
    elif key in ("readonly", "readwrite"):
        fields.truths["readonly"] = _read(parse_truth, written, value) == (key == "readonly")
    elif key == "required":
        _only_for(key, kind, ("secret", "ssh"))
        fields.truths[key] = _read(parse_truth, written, value)
    elif key == "size":
        _only_for(key, kind, ("tmpfs",))
        fields.numbers[key] = _read(parse_size, written, value)
    elif key in ("mode", "uid", "gid"):
        base = 8 if key == "mode" else 10
        fields.numbers[key] = _read(lambda text: parse_unsigned(text, base), written, value)
    else:
        fields.texts[key] = value


def _one_of(what: str, value: str, known: tuple[str, ...]) -> str:
    if value.lower() not in known:
        hint = did_you_mean(value, known) or f"one of {', '.join(known)}"
        raise DockerfileError(f"unsupported {what} {quote(value)}", hint)
    return value.lower()


def _only_for(key: str, kind: str, allowed: tuple[str, ...]) -> None:
    if kind not in allowed:
        raise DockerfileError(
            f"unexpected key '{key}' for mount type '{kind}'", f"only for {' and '.join(allowed)}; type= comes first"
        )


def _read(parse: Callable[[str], _Value], written: str, value: str) -> _Value:
    try:
        return parse(value)
    except ValueError:
        raise DockerfileError(f"invalid value for {written}: {value}") from None


def _check(kind: MountType, fields: _Fields) -> None:
    """What a type does not have, and what a secret needs."""
    texts = fields.texts
    if kind not in _OWNED:
        for key in ("mode", "uid", "gid"):
            if key in fields.numbers:
                raise DockerfileError(f'{key} not allowed for "{kind}" type mounts', f"only for {', '.join(_OWNED)}")
    if kind == "secret":
        if texts.get("from"):
            raise DockerfileError("secret mount should not have a from", "secrets come from --secret")
        if texts.get("source") and texts.get("id"):
            raise DockerfileError("both source and id can't be set", "they mean the same: give id=NAME")
        if not (texts.get("source") or texts.get("target") or texts.get("id")):
            raise DockerfileError("invalid secret mount: one of source, target required", "give it id=NAME")
    if kind == "ssh" and texts.get("source"):
        raise DockerfileError("ssh does not support source", "give it id=NAME")
    if texts.get("sharing") and kind != "cache":
        raise DockerfileError(f"invalid cache sharing set for {kind} mount", "sharing is for type=cache")
