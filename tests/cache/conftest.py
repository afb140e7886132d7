"""Who listens to caches, and registries to have them in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from builder.cache import CacheKey, Entry
from builder.cache.entry import LayerCache
from builder.events import Event, Message
from tests.images import layer
from tests.servers.front import Front, front
from tests.servers.registry import RegistryServer, docker_registry, missing


class Told:
    """The messages that came, by level."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def tell(self, event: Event) -> None:
        if isinstance(event, Message):
            self.messages.append(event)

    @property
    def warnings(self) -> list[str]:
        return [message.text for message in self.messages if message.level == "warning"]


def check_that_what_is_there_may_stay(cache: LayerCache, key: CacheKey, entry: Entry) -> None:
    """What every LayerCache makes of `replacing`."""
    other = Entry(layer({"file": b"other"}), entry.created, "below")
    assert cache.put(key, entry, "", lambda found: False)
    assert not cache.put(key, other, "", lambda found: found != entry)
    assert cache.get(key) == entry
    assert cache.put(key, other, "", lambda found: found == entry)
    assert cache.get(key) == other


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """One for all tests; each uses names of its own."""
    if missing():
        pytest.skip(missing())
    with docker_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def shop(server: RegistryServer) -> Iterator[Front]:
    """A front before the registry."""
    with front(server.host) as made:
        yield made


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository that only this test uses."""
    return "".join(char if char.isalnum() else "-" for char in request.node.name.lower()).strip("-").replace("--", "-")
