"""Whether what an executor made is what a case expects. Each key of `expect` has a function of its own here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kaniko.contents import Contents, File, read
from tests.kaniko.forks import Done


@dataclass(frozen=True)
class Outcome:
    """What an executor left. `directory` is where it ran: the layout is `out`, the context `context`."""

    done: Done
    directory: Path

    @property
    def layout(self) -> Path:
        return self.directory / "out"


def judge(expect: Mapping[str, Any], outcome: Outcome) -> list[str]:
    """Everything that is not as expected. Without `error` or `code`, the build must succeed."""
    expect = dict(expect)
    code = expect.pop("code", 1 if "error" in expect else 0)
    if outcome.done.code != code:
        return [f"exit code {outcome.done.code}, not {code}:\n{outcome.done.err}"]
    faults: list[str] = []
    image: Contents | None = None
    for key, value in expect.items():
        if key in _OF_LOG:
            faults += _OF_LOG[key](value, outcome)
        else:
            image = image or read(outcome.layout)
            faults += _OF_IMAGE[key](value, image)
    if "Traceback" in outcome.done.err:
        faults.append(f"traceback:\n{outcome.done.err}")
    return faults


def _log(texts: Any, outcome: Outcome) -> list[str]:
    return [f"not in the log: {text}\n{outcome.done.err}" for text in _list(texts) if text not in outcome.done.err]


def _not_log(texts: Any, outcome: Outcome) -> list[str]:
    return [f"in the log: {text}\n{outcome.done.err}" for text in _list(texts) if text in outcome.done.err]


def _error(texts: Any, outcome: Outcome) -> list[str]:
    """In the lines from `error:` on."""
    _, _, error = f"\n{outcome.done.err}".partition("\nerror: ")
    return [f"not in the error: {text}\n{outcome.done.err}" for text in _list(texts) if text not in error]


def _stdout(texts: Any, outcome: Outcome) -> list[str]:
    return [f"not on stdout: {text}\n{outcome.done.out}" for text in _list(texts) if text not in outcome.done.out]


def _outputs(files: Mapping[str, Any], outcome: Outcome) -> list[str]:
    """Files below the directory where the executor ran: null for absent, else a regular expression of the whole."""
    faults = []
    for name, pattern in files.items():
        path = outcome.directory / name
        text = path.read_text(errors="replace") if path.is_file() else None
        if pattern is None or text is None:
            faults += [f"{name}: {text!r}"] if text is not None or path.exists() or pattern is not None else []
        elif not re.fullmatch(pattern, text):
            faults.append(f"{name}: {text!r}")
    return faults


def _files(expected: Mapping[str, Any], image: Contents) -> list[str]:
    faults = []
    for path, wanted in expected.items():
        file = image.files.get(path.strip("/"))
        if file is None:
            faults.append(f"{path} is missing; there is {sorted(image.files)[-40:]}")
        else:
            faults += _file(path, wanted if isinstance(wanted, Mapping) else {"content": wanted}, file)
    return faults


def _file(path: str, wanted: Mapping[str, Any], file: File) -> list[str]:
    found: dict[str, Any] = {
        "content": file.content.decode(errors="replace"),
        "mode": f"{file.mode:04o}",
        "owner": file.owner,
        "kind": file.kind,
        "link": file.target,
        "mtime": file.mtime,
        "xattrs": list(file.xattrs),
    }
    return [f"{path}: {key} {found[key]!r}, not {value!r}" for key, value in wanted.items() if found[key] != value]


def _absent(paths: list[str], image: Contents) -> list[str]:
    return [f"{path} is there" for path in paths if path.strip("/") in image.files]


def _layers(expected: int, image: Contents) -> list[str]:
    return [] if len(image.layers) == expected else [f"{len(image.layers)} layers: {image.layers[1:]}"]


def _last_layer(expected: list[str], image: Contents) -> list[str]:
    names = sorted(image.layers[-1])
    return [] if names == sorted(expected) else [f"the last layer has {names}"]


def _last_layer_has(expected: list[str], image: Contents) -> list[str]:
    return [f"{name} is not in {image.layers[-1]}" for name in expected if name not in image.layers[-1]]


def _hardlinks(expected: Mapping[str, str], image: Contents) -> list[str]:
    """Name -> first name, both in the last layer."""
    links = {member.name: member.linkname for member in image.members[-1] if member.islnk()}
    return [] if links == dict(expected) else [f"hardlinks {links}"]


def _config(expected: Mapping[str, Any], image: Contents) -> list[str]:
    """Members of `config`; null for one that is not there."""
    config = image.config.get("config", {})
    return [f"{key}: {config.get(key)!r}" for key, value in expected.items() if config.get(key) != value]


def _image_config(expected: Mapping[str, Any], image: Contents) -> list[str]:
    """Members of the whole configuration."""
    return [f"{key}: {image.config.get(key)!r}" for key, value in expected.items() if image.config.get(key) != value]


def _manifest(expected: Mapping[str, Any], image: Contents) -> list[str]:
    manifest = image.manifest
    return [f"{key}: {manifest.get(key)!r}" for key, value in expected.items() if manifest.get(key) != value]


def _layer_types(expected: list[str], image: Contents) -> list[str]:
    types = [layer["mediaType"] for layer in image.manifest["layers"]]
    return [] if types == expected else [f"layers are {types}"]


def _history(expected: list[str], image: Contents) -> list[str]:
    """Beginnings of `created_by` of what is new, in order; `-` before one means that it has no layer."""
    entries = image.config["history"][-len(expected) :]
    found = [("-" if entry.get("empty_layer") else "") + entry["created_by"] for entry in entries]
    same = all(text.startswith(wanted) for text, wanted in zip(found, expected, strict=True))
    return [] if same else [f"history {json.dumps(found)}"]


def _list(texts: Any) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


_OF_LOG: dict[str, Callable[[Any, Outcome], list[str]]] = {
    "error": _error,
    "log": _log,
    "not_log": _not_log,
    "outputs": _outputs,
    "stdout": _stdout,
}
_OF_IMAGE: dict[str, Callable[[Any, Contents], list[str]]] = {
    "absent": _absent,
    "config": _config,
    "files": _files,
    "hardlinks": _hardlinks,
    "history": _history,
    "image_config": _image_config,
    "last_layer": _last_layer,
    "last_layer_has": _last_layer_has,
    "layer_types": _layer_types,
    "layers": _layers,
    "manifest": _manifest,
}
