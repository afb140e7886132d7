"""The Task, the StepAction and the restricted Task, run for real in both kinds of clusters, as root and as uid 1000."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from builder.outputs import RESULTS
from tests.servers import git_http
from tests.servers.certificates import Authority
from tests.servers.registry import RegistryServer
from tests.task.debian_package import INSTALL, write_repository
from tests.task.git_repository import make_repository
from tests.task.taskrun import ORDINARY_USER, Outcome, Pod

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="pods are made with podman as root"),
]
WITH_RUN = """\
ARG REGISTRY
FROM ${REGISTRY}/busybox AS made
ARG WORDS
RUN mkdir -p /out/dir && echo "$WORDS" >/out/dir/words && ln -s words /out/dir/link && chmod 4755 /out/dir/words
ARG SEES_MOUNTS
RUN --mount=type=secret,id=token cat /run/secrets/token >/dev/null && test -z "$DOCKER_CONFIG" \\
 && test ! -e /tekton/creds/.docker/config.json && test "$SEES_MOUNTS" = "$(test -e /tekton/home && echo yes)"
FROM ${REGISTRY}/busybox
COPY --from=made /out /out
COPY file /
CMD ["/bin/cat", "/out/dir/words"]
"""
WITH_APT = f"""\
ARG REGISTRY
FROM ${{REGISTRY}}/debian AS installed
COPY packages /packages
{INSTALL}
FROM ${{REGISTRY}}/busybox
COPY --from=installed /usr/share/sample /sample
CMD ["/bin/sh", "-c", "cd /sample; stat -c '%n %u:%g %a' plain setuid state state/owned"]
"""
INSTALLED = "plain 0:0 644\nsetuid 0:750 4750\nstate 750:1 1770\nstate/owned 750:750 640\n"
WITHOUT_RUN = """\
ARG REGISTRY
FROM scratch AS made
COPY file /out/dir/words
FROM ${REGISTRY}/busybox
COPY --from=made --chown=1:2 /out /out
ENV A=b
CMD ["/bin/cat", "/out/dir/words"]
"""
WORDS = """B=two words; $(id) `id` "q" --no-push"""
KINDS_WITH_RUN = [("Unconfined", "root"), ("RuntimeDefault", "root"), ("Unconfined", "uid 1000")]
EVERY_KIND = [*KINDS_WITH_RUN, ("RuntimeDefault", "uid 1000")]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source tree as git-clone leaves it: another uid's."""
    source = tmp_path_factory.mktemp("source")
    source.parent.chmod(0o755)
    source.chmod(0o755)
    app = source / "app"
    app.mkdir()
    (app / "file").write_text("a file\n")
    (app / "Dockerfile").write_text(WITH_RUN)
    (app / "Dockerfile.copy").write_text(WITHOUT_RUN)
    (app / "Dockerfile.apt").write_text(WITH_APT)
    write_repository(app / "packages")
    for path in (source, *source.rglob("*")):
        os.chown(path, 65532, 65532)
    return source


@pytest.fixture
def pod(tmp_path: Path, private_registry: RegistryServer, executor: str, source: Path) -> Pod:
    tmp_path.chmod(0o755)
    server = private_registry
    params = {
        "CONTEXT": "app",
        "DOCKERFILE": "app/Dockerfile",
        "TAGS": ["2", "3"],
        "BUILD_ARGS": [f"REGISTRY={server.host}", f"WORDS={WORDS}"],
        "LABELS": ["a=b c"],
        "ANNOTATIONS": ["org.example.note=n"],
        "INSECURE_REGISTRIES": [server.host],
    }
    return Pod(tmp_path, server, executor, source, params=params, secrets={"secrets": {"token": "secret-token"}})


def be(pod: Pod, cluster: str, user: str) -> None:
    pod.cluster = cluster
    if user == "uid 1000":
        pod.security, pod.service_account = ORDINARY_USER, True


def check(pod: Pod, outcome: Outcome, printed: str, *, pushed: bool = True) -> None:
    """The results are right and small, and the image they name is there and runs."""
    assert outcome.code == 0, outcome.log
    host, results = pod.registry.host, outcome.results
    digest = results["IMAGE_DIGEST"]
    assert results["IMAGE_URL"] == f"{host}/app:1"
    assert results["IMAGE_REF"] == results["IMAGES"] == f"{host}/app@{digest}"
    output = json.loads(results["image-ARTIFACT_OUTPUTS"])
    assert output == {"uri": f"{host}/app", "digest": digest, "isBuildArtifact": "true"}
    base = json.loads(results["base-ARTIFACT_INPUTS"])
    assert base["uri"] == f"{host}/busybox" and base["digest"].startswith("sha256:")
    assert set(results) >= {name for name in RESULTS if not name.startswith("CHAINS-GIT")}
    assert not any("\n" in text for text in results.values())
    assert len(json.dumps(results)) < 4096
    assert "pass-word" not in outcome.log and "secret-token" not in outcome.log
    if pushed:
        run_image(pod, digest, printed)


def run_image(pod: Pod, digest: str, printed: str) -> None:
    server = pod.registry
    credentials = ["--creds", f"{server.username}:{server.password}", "--tls-verify=false"]
    for tag in ("1", "2", "3"):
        argv = ["skopeo", "inspect", *credentials, "--no-tags", f"docker://{server.host}/app:{tag}"]
        inspected = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
        assert inspected["Digest"] == digest
        assert inspected["Labels"]["a"] == "b c"
    name = f"localhost/limpet-app:{os.getpid()}"
    subprocess.run(
        [
            *("skopeo", "copy", "-q", "--src-creds", credentials[1], "--src-tls-verify=false"),
            *(f"docker://{server.host}/app@{digest}", f"containers-storage:{name}"),
        ],
        check=True,
    )
    podman = ["podman", "--runtime", "/usr/sbin/runc", "run", "--rm", "--network", "host"]
    podman += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]
    try:
        assert subprocess.run([*podman, name], capture_output=True, text=True, check=True).stdout == printed
    finally:
        subprocess.run(["podman", "rmi", "-f", name], capture_output=True)


@pytest.mark.parametrize(("cluster", "user"), KINDS_WITH_RUN)
@pytest.mark.parametrize("name", ["limpet", "stepaction"])
def test_run_with_arguments_and_secrets(pod: Pod, name: str, cluster: str, user: str) -> None:
    """RUN sees what the pod mounts only in place, and never a credential that can be taken away."""
    be(pod, cluster, user)
    pod.service_account = pod.service_account or name == "stepaction"
    if (cluster, user) == ("RuntimeDefault", "root"):
        pod.params["BUILD_ARGS"] = [*pod.params["BUILD_ARGS"], "SEES_MOUNTS=yes"]
    check(pod, pod.run(name), WORDS + "\n")


@pytest.mark.usefixtures("debian")
@pytest.mark.parametrize(("cluster", "user"), KINDS_WITH_RUN)
def test_packages_are_installed(pod: Pod, cluster: str, user: str) -> None:
    be(pod, cluster, user)
    pod.params["DOCKERFILE"] = "app/Dockerfile.apt"
    check(pod, pod.run("limpet"), INSTALLED)


@pytest.mark.parametrize(("cluster", "user"), EVERY_KIND)
@pytest.mark.parametrize("name", ["limpet", "stepaction"])
def test_without_run_every_pod_builds(pod: Pod, name: str, cluster: str, user: str) -> None:
    be(pod, cluster, user)
    pod.params["DOCKERFILE"] = "app/Dockerfile.copy"
    check(pod, pod.run(name), "a file\n")


@pytest.mark.parametrize("service_account", [False, True])
def test_the_restricted_task_builds_what_has_no_run(pod: Pod, service_account: bool) -> None:
    pod.params["DOCKERFILE"] = "app/Dockerfile.copy"
    if service_account:
        be(pod, "RuntimeDefault", "uid 1000")
    check(pod, pod.run("limpet-restricted"), "a file\n")


def test_the_restricted_task_refuses_run(pod: Pod) -> None:
    outcome = pod.run("limpet-restricted")
    assert outcome.code != 0
    assert "no isolation works here" in outcome.log and "it needs uid 0, and this is uid 1000" in outcome.log
    assert "Traceback" not in outcome.log


def test_results_are_there_without_a_push(pod: Pod) -> None:
    pod.params |= {"PUSH": "false", "DOCKERFILE": "app/Dockerfile.copy", "IMAGE": f"{pod.registry.host}/app:1"}
    before = pod.registry.requests("PUT")
    check(pod, pod.run("limpet"), "", pushed=False)
    assert pod.registry.requests("PUT") == before


def test_a_value_that_is_a_flag_is_refused(pod: Pod) -> None:
    pod.params["TAGS"] = ["2", f"--destination={pod.registry.host}/other"]
    outcome = pod.run("limpet")
    assert outcome.code != 0
    assert "after --only-lists" in outcome.log


@pytest.mark.skipif(bool(git_http.missing()), reason=git_http.missing())
@pytest.mark.parametrize(("cluster", "user"), [("RuntimeDefault", "root"), ("Unconfined", "uid 1000")])
def test_git_trusts_the_ca_workspace(pod: Pod, tmp_path: Path, cluster: str, user: str) -> None:
    """As a context, and for ADD; CONTEXT is an address, so that no source tree is read."""
    be(pod, cluster, user)
    authority = Authority(tmp_path / "authority")
    with git_http.git_http(tmp_path / "git", tls=authority.server()) as server:
        dockerfile = WITHOUT_RUN + f"ADD {server.url}/app.git /added\n"
        make_repository(server.root / "app.git", {"Dockerfile": dockerfile, "file": "from git\n"})
        pod.params |= {"CONTEXT": f"{server.url}/app.git", "DOCKERFILE": "Dockerfile"}
        refused = pod.run("limpet")
        pod.secrets["ca"] = {"anything.crt": authority.certificate.read_text()}
        outcome = pod.run("limpet")
        url = f"{server.url}/app.git"
    assert refused.code != 0 and "certificate" in refused.log
    check(pod, outcome, "from git\n")
    assert outcome.results["CHAINS-GIT_URL"] == url
    assert re.fullmatch("[0-9a-f]{40}", outcome.results["CHAINS-GIT_COMMIT"])


def test_a_source_of_another_user_is_a_plain_error(pod: Pod, tmp_path: Path) -> None:
    """A volume that root wrote with a strict umask, without fsGroup."""
    be(pod, "Unconfined", "uid 1000")
    pod.source = tmp_path / "private"
    (pod.source / "app").mkdir(parents=True)
    pod.source.chmod(0o700)
    outcome = pod.run("limpet")
    assert outcome.code == 1
    assert "/workspace/source/app: permission denied" in outcome.log and "fsGroup" in outcome.log
    assert "internal" not in outcome.log


@pytest.mark.parametrize(("cluster", "user"), KINDS_WITH_RUN)
def test_layers_are_cached(pod: Pod, tmp_path: Path, cluster: str, user: str) -> None:
    """By CACHE, CACHE_REPO and CACHE_TTL: RUN makes something new each time that it happens."""
    be(pod, cluster, user)
    pod.source = own_source(
        tmp_path, "ARG REGISTRY\nFROM ${REGISTRY}/busybox\nRUN head -c 16 /dev/urandom >/made\nCOPY Dockerfile /\n"
    )
    repository = f"{pod.registry.host}/cache/{cluster.lower()}-{user.replace(' ', '-')}"
    pod.params |= {"CONTEXT": ".", "DOCKERFILE": "Dockerfile", "CACHE": "true", "CACHE_REPO": repository}
    pod.params["BUILD_ARGS"] = pod.params["BUILD_ARGS"][:1]
    first, second = pod.run("limpet"), pod.run("stepaction")
    pod.params["CACHE_TTL"] = "1ms"
    third = pod.run("limpet")
    assert (first.code, second.code, third.code) == (0, 0, 0), first.log + second.log + third.log
    digests = [outcome.results["IMAGE_DIGEST"] for outcome in (first, second, third)]
    assert digests[0] == digests[1] != digests[2]
    assert pod.registry.requests("PUT", f"/v2/{repository.partition('/')[2]}/manifests/")


@pytest.mark.parametrize(("cluster", "user"), KINDS_WITH_RUN)
def test_builds_share_the_cache_workspace(pod: Pod, tmp_path: Path, cluster: str, user: str) -> None:
    """Base images are fetched once, and cache mounts are kept, without CACHE; reports go to their workspace."""
    be(pod, cluster, user)
    mount = "RUN --mount=type=cache,target=/kept echo run >>/kept/runs && cp /kept/runs /runs\n"
    pod.source = own_source(tmp_path, f"ARG REGISTRY\nFROM ${{REGISTRY}}/busybox\n{mount}CMD cat /runs\n")
    pod.params |= {"CONTEXT": ".", "DOCKERFILE": "Dockerfile", "BUILD_ARGS": pod.params["BUILD_ARGS"][:1]}
    pod.volumes["cache"] = tmp_path / "cache"
    pod.volumes["cache"].mkdir()
    pod.volumes["reports"] = tmp_path / "reports"
    pod.volumes["reports"].mkdir()
    for volume in pod.volumes.values():
        volume.chmod(0o777)
    first = pod.run("limpet")
    fetched = pod.registry.requests("GET", "/v2/busybox/blobs/")
    second = pod.run("stepaction")
    check(pod, first, "", pushed=False)
    check(pod, second, "run\nrun\n")
    new = pod.registry.requests("GET", "/v2/busybox/blobs/")[len(fetched) :]
    assert len(new) <= 1  # the configuration
    statement = json.loads((pod.volumes["reports"] / "provenance.json").read_text())
    assert f"sha256:{statement['subject'][0]['digest']['sha256']}" == second.results["IMAGE_DIGEST"]
    assert (pod.volumes["reports"] / "sbom.spdx.json").exists()


def own_source(directory: Path, dockerfile: str) -> Path:
    made = directory / "own-source"
    made.mkdir()
    made.chmod(0o755)
    (made / "Dockerfile").write_text(dockerfile)
    return made
