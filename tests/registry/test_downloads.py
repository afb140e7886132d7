"""Downloads that break, and what is never used."""

from __future__ import annotations

import pytest

from builder.errors import BuildError, ImageError, RegistryError
from builder.oci.descriptor import Descriptor, sha256
from builder.oci.image import Image
from builder.oci.reference import Reference
from builder.registry.download import open_blob
from tests.registry.client import first_blob, pull
from tests.registry.conftest import Connect
from tests.servers.front import Corrupt, CutResponse, Front, Without
from tests.servers.registry import RegistryServer


@pytest.mark.parametrize("orderly", [True, False])
def test_a_broken_download_goes_on_where_it_broke(
    shop: Front, connect: Connect, name: str, pushed: Image, orderly: bool
) -> None:
    for after in (1_000_000, 700_000, 0):
        shop.fault(CutResponse(after, orderly), "GET", first_blob(pushed))
    data = pull(connect, f"{shop.host}/{name}:1")
    assert sha256(data) == first_blob(pushed)
    ranges = [seen.headers.get("Range") for seen in shop.seen if first_blob(pushed) in seen.path]
    assert ranges[0] is None
    starts = [int(str(value)[len("bytes=") : -1]) for value in ranges[1:]]
    if orderly:
        assert starts == [1_000_000, 1_700_000, 1_700_000]
    else:
        assert len(starts) == 3
        assert starts == sorted(starts)
        assert starts[0] > 0


def test_a_broken_download_from_a_registry_without_ranges(
    shop: Front, connect: Connect, name: str, pushed: Image
) -> None:
    shop.fault(CutResponse(2_000_000), "GET", first_blob(pushed))
    shop.fault(Without("Range"), "GET", first_blob(pushed))
    assert sha256(pull(connect, f"{shop.host}/{name}:1")) == first_blob(pushed)


def test_a_download_that_stays_broken(shop: Front, connect: Connect, name: str, pushed: Image) -> None:
    shop.fault(CutResponse(1000, orderly=True), "GET", first_blob(pushed))
    shop.fault(CutResponse(0), "GET", first_blob(pushed), times=99)
    with pytest.raises(RegistryError) as caught:
        pull(connect, f"{shop.host}/{name}:1", retries=2)
    assert (
        f"downloading {first_blob(pushed)} at byte 1000 of {pushed.layers[0].descriptor.size}" in caught.value.message
    )
    assert caught.value.transient
    assert shop.count("GET", first_blob(pushed)) == 1 + 2


def test_every_break_with_progress_is_forgiven(shop: Front, connect: Connect, name: str, pushed: Image) -> None:
    shop.fault(CutResponse(200_000), "GET", first_blob(pushed), times=10)
    assert sha256(pull(connect, f"{shop.host}/{name}:1", retries=1)) == first_blob(pushed)


@pytest.mark.parametrize("what", ["layer", "manifest", "config"])
def test_wrong_bytes_are_never_used(shop: Front, connect: Connect, name: str, pushed: Image, what: str) -> None:
    digest = {
        "layer": first_blob(pushed),
        "manifest": pushed.manifest()[0].digest,
        "config": Descriptor.of("", pushed.config_bytes()).digest,
    }[what]
    shop.fault(Corrupt(), "GET", f"/{digest}" if what != "manifest" else "manifests", times=99)
    with pytest.raises(ImageError, match="does not match its digest"):
        pull(connect, f"{shop.host}/{name}:1")


def test_a_blob_that_is_longer_or_shorter_than_its_descriptor(
    plain: RegistryServer, connect: Connect, name: str, pushed: Image
) -> None:
    repository = connect(retries=1).repository(Reference.parse(f"{plain.host}/{name}"), "pull")
    real = pushed.layers[0].descriptor
    for size, words in ((real.size - 10, "longer than"), (real.size + 10, f"ends after {real.size} of")):
        with pytest.raises(BuildError, match=words), open_blob(repository, Descriptor("", real.digest, size)) as stream:
            stream.read()
