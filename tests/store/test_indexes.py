"""Indexes that are kept say what the layer says."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.events import Silent
from builder.rootfs.entry import NO_XATTRS, BytesContent, Change, Entry, FileType, Opaque, Whiteout
from builder.store.entries import Entries
from builder.store.indexes import StoredIndexes
from tests.images import layer

LAYER = layer({"file": b"content"})

# What os.fsdecode makes of any bytes.
paths = (
    st.binary(min_size=1, max_size=12)
    .filter(lambda data: b"\0" not in data)
    .map(lambda data: data.decode("utf-8", "surrogateescape"))
)
xattrs = st.dictionaries(st.text("user.abc", min_size=1), st.binary(), max_size=2)
entries = st.builds(
    Entry,
    path=paths,
    type=st.sampled_from(FileType),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    mtime=st.integers(-(2**40), 2**62),
    size=st.integers(0, 2**60),
    target=paths,
    device=st.tuples(st.integers(0, 4095), st.integers(0, 2**20)),
    xattrs=xattrs.map(lambda values: MappingProxyType(values) if values else NO_XATTRS),
)
changes = st.lists(entries | st.builds(Whiteout, paths) | st.builds(Opaque, paths))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(changes)
def test_what_is_kept_is_what_comes_back(tmp_path: Path, wanted: list[Change]) -> None:
    kept = Entries(tmp_path, Silent())
    kept.forget(("sha256-",))
    StoredIndexes(kept, lambda diff_id: None).put(LAYER, wanted)
    kept.close()
    other = Entries(tmp_path, Silent())
    assert StoredIndexes(other, lambda diff_id: None).get(LAYER) == wanted
    other.close()


def test_users_are_kept_with_their_files(tmp_path: Path) -> None:
    kept = StoredIndexes(Entries(tmp_path, Silent()), lambda diff_id: None)
    files = [("etc/passwd", b"root:x:0:0\n"), ("etc/shadow", b"secret")]
    kept.put(
        LAYER,
        [Entry(path, FileType.FILE, size=len(data), content=BytesContent(data)) for path, data in files],
    )
    passwd, shadow = kept.get(LAYER) or ()
    assert isinstance(passwd, Entry) and passwd.content is not None
    assert passwd.content.open().read() == b"root:x:0:0\n"
    assert isinstance(shadow, Entry) and shadow.content is None
