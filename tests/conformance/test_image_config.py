"""What BuildKit makes of whole Dockerfiles: the image's configuration and history, lint findings, and operations."""

from __future__ import annotations

import base64
import posixpath
from collections import Counter
from typing import Any

import pytest

from builder.dockerfile import parse
from builder.errors import BuildError
from builder.oci.config import History, ImageConfig
from builder.oci.platform import Platform
from builder.plan import (
    NETWORK_HOST,
    SECURITY_INSECURE,
    BaseImage,
    ImageBase,
    Plan,
    PlannedStage,
    PlanOptions,
    StageBase,
    plan,
)
from builder.steps.step import (
    AddStep,
    BindMount,
    CacheMount,
    CopyStep,
    RunMount,
    RunStep,
    SecretMount,
    SshMount,
    TmpfsMount,
    WorkdirStep,
)
from tests.conformance.dockerfile_forms import encode

JSON = dict[str, Any]

_DEVICE = "RUN --device is of the labs channel, and no isolation gives a step devices: an error that names the line"
DEVIATIONS = {
    "dockerfile_rundevice_test.go:44:testDeviceRunEnv": _DEVICE,
    "h112": _DEVICE,
    "l161": _DEVICE,
    "l093": "RUN [] is planned by BuildKit and fails when it is to run; Limpet refuses it at once, naming the line",
}

_BUILD_PLATFORM = Platform("linux", "amd64")
# RUN may ask for everything here: whether a build allows it is not the language's business.
_ALLOWED = frozenset({NETWORK_HOST, SECURITY_INSECURE})


@pytest.mark.vectors("image_config")
def test_image_config(case: JSON) -> None:
    if "error" in case:
        with pytest.raises(BuildError):
            _plan(case)
        return
    planned = _plan(case)
    assert _comparable(_image(planned).to_json()) == _comparable(case["image"])
    found = Counter((warning.rule, warning.location.start) for warning in planned.warnings)
    assert found == Counter((warning["rule"], warning["line"]) for warning in case.get("warnings") or [])
    _check_operations(planned, case["ops"] or [])


def _check_operations(planned: Plan, operations: list[JSON]) -> None:
    """Processes, directories and copies are those of the graph that BuildKit would solve, whatever their order."""
    steps = [step for stage in planned.stages for step in stage.steps]
    processes = {_process(operation["exec"]) for operation in operations if "exec" in operation}
    assert {_process_of(step) for step in steps if isinstance(step, RunStep)} == processes
    actions = [action for operation in operations for action in (operation.get("file") or {}).get("actions") or []]
    assert {step.path for step in steps if isinstance(step, WorkdirStep)} == {
        action["mkdir"]["path"] for action in actions if action.get("mkdir", {}).get("makeParents")
    }
    copies = [step for step in steps if isinstance(step, CopyStep | AddStep)]
    assert {step.destination for step in copies} == {action["copy"]["dest"] for action in actions if "copy" in action}
    assert {(file.name, encode(file.content)) for step in copies for file in step.heredocs} == {
        (action["mkfile"]["path"].lstrip("/"), base64.b64decode(action["mkfile"].get("data", "")))
        for action in actions
        if "mkfile" in action and action["mkfile"]["mode"] == 0o644
    }


def _plan(case: JSON) -> Plan:
    def resolve(reference: str, platform: Platform) -> BaseImage:
        return BaseImage(ImageConfig.from_json(case["bases"].get(reference) or _plain_image(platform)))

    options = PlanOptions(
        build_platform=_BUILD_PLATFORM,
        target_platform=Platform.parse(case["platform"]) if case["platform"] else None,
        build_args=case["build_args"],
        targets=(case["target"],) if case["target"] else (),
        labels=case["labels"],
        allow=_ALLOWED,
    )
    return plan(parse(encode(case["dockerfile"]), "Dockerfile"), options, resolve)


def _plain_image(platform: Platform) -> JSON:
    created = "2020-01-01T00:00:00Z"
    return {
        "architecture": platform.architecture,
        "os": platform.os,
        "variant": platform.variant,
        "created": created,
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["/bin/sh"],
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + 64 * "1"]},
        "history": [{"created": created, "created_by": "base layer"}],
    }


def _image(planned: Plan) -> ImageConfig:
    """The target's configuration as far as a plan knows it: without the layers that steps will make."""
    stage = planned.stage(planned.targets[0])
    base = _outside_base(stage, planned)
    return ImageConfig(
        platform=stage.platform,
        exec=stage.final,
        diff_ids=base.diff_ids if base else (),
        history=_history(stage, planned),
        author=stage.author,
        unknown=base.unknown if base else {},
    )


def _outside_base(stage: PlannedStage, planned: Plan) -> ImageConfig | None:
    while isinstance(stage.base, StageBase):
        stage = planned.stage(stage.base.index)
    return stage.base.config if isinstance(stage.base, ImageBase) else None


def _history(stage: PlannedStage, planned: Plan) -> tuple[History, ...]:
    own = tuple(step.history for step in stage.steps if step.history)
    match stage.base:
        case StageBase(index):
            return (*_history(planned.stage(index), planned), *own)
        case ImageBase():
            return (*stage.base.config.history, *own)
        case _:
            return own


def _comparable(image: JSON) -> JSON:
    """Without the time, which a plan does not know; null, {} and [] are one thing at these places."""
    rootfs = image["rootfs"] | {"diff_ids": image["rootfs"].get("diff_ids") or []}
    kept = {name: value for name, value in image.items() if name != "created"}
    return kept | {"rootfs": rootfs, "history": image.get("history") or [], "config": image.get("config") or {}}


def _process(operation: JSON) -> tuple[Any, ...]:
    meta = operation["meta"]
    mounts = [_mount(mount, meta["cwd"]) for mount in operation["mounts"] if mount["dest"] not in ("/", "/dev/pipes/")]
    variables = [(secret["ID"], secret.get("name", "")) for secret in operation.get("secretenv") or []]
    return (
        tuple(meta["args"]),
        tuple(sorted(meta.get("env") or [])),
        meta.get("user", ""),
        meta["cwd"],
        operation.get("network", "UNSET"),
        operation.get("security", "SANDBOX"),
        tuple(sorted(mounts)),
        tuple(sorted(variables)),
    )


def _mount(mount: JSON, cwd: str) -> tuple[Any, ...]:
    """A mount in the form of `_mount_of`. BuildKit joins the targets of secrets to the directory when it runs them."""
    kind = mount.get("mountType", "BIND")
    target = mount["dest"] if mount["dest"].startswith("/") else posixpath.join(cwd, mount["dest"])
    common = (kind, target, bool(mount.get("readonly")))
    if kind == "CACHE":
        cache = mount["cacheOpt"]
        return (*common, cache["ID"].removeprefix("/"), cache.get("sharing", "SHARED"))
    if kind in ("SECRET", "SSH"):
        option = mount["secretOpt" if kind == "SECRET" else "SSHOpt"]
        owner = (option.get("mode"), option.get("uid", 0), option.get("gid", 0))
        return (*common, option["ID"], not option.get("optional"), *owner)
    if kind == "TMPFS":
        return (*common, int(mount["TmpfsOpt"].get("size", 0)))
    return (*common, mount.get("selector", "/"))


def _process_of(step: RunStep) -> tuple[Any, ...]:
    secrets = [mount for mount in step.mounts if isinstance(mount, SecretMount)]
    variables = [(secret.id, secret.env) for secret in secrets if secret.env or not secret.target]
    mounts = [_mount_of(mount) for mount in step.mounts if mount.target]
    return (
        step.argv,
        tuple(sorted(f"{name}={value}" for name, value in step.env.items())),
        step.user,
        step.cwd,
        {"default": "UNSET", "none": "NONE", "host": "HOST"}[step.network],
        step.security.upper(),
        tuple(sorted(mounts)),
        tuple(sorted(variables)),
    )


def _mount_of(mount: RunMount) -> tuple[Any, ...]:
    match mount:
        case BindMount():
            return ("BIND", mount.target, not mount.writable, mount.source)
        case CacheMount():
            return ("CACHE", mount.target, mount.read_only, mount.id, mount.sharing.upper())
        case TmpfsMount():
            return ("TMPFS", mount.target, False, mount.size)
        case SecretMount():
            return ("SECRET", mount.target, False, mount.id, mount.required, mount.mode, mount.uid, mount.gid)
        case SshMount():
            return ("SSH", mount.target, False, mount.id, mount.required, mount.mode, mount.uid, mount.gid)
