"""CIDs against those of other implementations; the local store through every failing write."""

import base64
import contextlib
import hashlib
import io
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from orthanc_ledger.content import Batch, ContentStore, open_store, verify_cid
from orthanc_ledger.content.cid import (
    UnixFsImporter,
    block_cid,
    blocks_of,
    check_block_cid,
    check_file_cid,
    children,
    cid_of,
    cid_text,
    is_tree,
)
from orthanc_ledger.content.local import LocalStore
from orthanc_ledger.errors import ConfigError, ContentAway, IntegrityError, NotHeld

EMPTY = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
ABSENT = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
ROOT = "bafyreihdb57fdysx5h35urvxz64ros7zvywshber7id6t6c6fek37jgyfe"
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def from_v0(cid: str) -> str:
    """The CIDv1 of a CIDv0: the same dag-pb block."""
    number = 0
    for character in cid:
        number = number * 58 + BASE58.index(character)
    return cid_text(b"\x01\x70" + number.to_bytes(34, "big"))


def stream(size: int) -> bytes:
    return (hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1))[:size]


class TestCids:
    @pytest.mark.parametrize(
        ("content", "cid"),
        [
            (b"", EMPTY),
            (b"hello world", ABSENT),
        ],
    )
    def test_small_file_is_its_raw_leaf(self, content: bytes, cid: str) -> None:
        assert cid_of(io.BytesIO(content)) == cid

    def test_tree_is_that_of_go_ipfs(self) -> None:
        # From the test suite of cpp-filecoin ("MatchGo"); its deeper trees link by CIDv0.
        got = cid_of(io.BytesIO(b"[0     10)[10   19)"), chunk=10, links=2)
        assert got == from_v0("QmUyaoLFxpUpZra4qs65dMbrBMEERJt91JL3kdyKEXqLxN")

    # This and the next from an importer that was compared with Kubo 0.42.0.
    @pytest.mark.parametrize(
        ("size", "chunk", "links", "cid"),
        [
            (12, 4, 3, "bafybeidjimk5ijaur5zy4d35poyitlzf4qcpx3fsd543bxhe3sbpof22iu"),
            (13, 4, 3, "bafybeiafgdmkfd7vajpbwbfsp5bnelfykviswcbudqlmd3zvsv7pcpsupm"),
            (36, 4, 3, "bafybeibjw7zye25aefzw4najejytemhl262sakqlgxwmiyu6lfodc6dgpy"),
            (37, 4, 3, "bafybeifiak5d47bi2rr2hwjzm7sm6usabx6h45jgjlkgpssiysty77r6ee"),
            (200, 4, 3, "bafybeihufnnlx7kk4sgpj5uqd6dcgmvchsbmogbno2d5tx525xm6elyzmy"),
            (1000, 7, 2, "bafybeictyyy546cbf5pxmq6vv7exaiwftx54zebpei3seprs7jvm5abihm"),
        ],
    )
    def test_deep_tree_has_the_cid_of_kubo(self, size: int, chunk: int, links: int, cid: str) -> None:
        assert cid_of(io.BytesIO(stream(size)), chunk, links) == cid

    @pytest.mark.parametrize(
        ("size", "cid"),
        [
            (1, "bafkreiecktbstkjikd3nkoo5g5xuqfxoe5sfc7nf4arvkffpimywisanpi"),
            (262_144, "bafkreifwnz5hbvaylm32r4ss3b55dgbj5z3dagvhogbgbqu37ll24f2jzy"),
            (1_048_575, "bafkreic6utsnuod2ukl5x4vbdojdihjiorsgrbpeq7lgtpktrk2hflmgqy"),
            (1_048_576, "bafkreib5cmfjek4b5llh5mx4ihrcqdklose2gnb7qcuaz6eao6agi24coa"),
            (1_048_577, "bafybeicsjyxn2qncxrywszrnylflribsb3vrevglyooyae6mgaekfqao6q"),
            (10_000_000, "bafybeianeojn2fviwza7pjltyislgin5gbm6fg2nwb7iwsk7tupitt7s3m"),
        ],
    )
    def test_file_has_the_cid_of_kubo(self, size: int, cid: str) -> None:
        assert cid_of(io.BytesIO(stream(size))) == cid

    def test_cid_is_the_same_however_the_bytes_come(self) -> None:
        content = stream(3001)
        for step in (1, 7, 100, 3001):
            importer = UnixFsImporter(chunk=64, links=3)
            for start in range(0, len(content), step):
                importer.update(content[start : start + step])
            assert importer.finish() == cid_of(io.BytesIO(content), 64, 3)

    @pytest.mark.parametrize("size", [0, 1, 3, 4, 12, 13, 36, 37, 1000])
    def test_blocks_of_a_file_have_their_cids_and_end_with_its_root(self, size: int) -> None:
        blocks = list(blocks_of(io.BytesIO(stream(size)), chunk=4, links=3))
        assert cid_text(blocks[-1][0]) == cid_of(io.BytesIO(stream(size)), chunk=4, links=3)
        assert all(cid[4:] == hashlib.sha256(block).digest() for cid, block in blocks)
        assert b"".join(block for cid, block in blocks if cid[1] == 0x55) == stream(size)

    def test_a_tree_s_nodes_name_what_is_below_them(self) -> None:
        blocks = {cid_text(cid): block for cid, block in blocks_of(io.BytesIO(stream(1000)), chunk=7, links=3)}
        root = list(blocks)[-1]
        below = [root]
        for cid in below:
            below += children(blocks[cid]) if is_tree(cid) else []
        assert set(below) == set(blocks)
        with pytest.raises(IntegrityError, match="dag-pb"):
            children(b"\x12\x80")
        with pytest.raises(IntegrityError, match="64 bits"):  # as long as a block may be, it were minutes of work
            children(b"\xff" * 100)

    def test_block_cid_is_that_of_the_ipld_fixtures(self) -> None:
        # array-2 of the IPLD codec fixtures.
        assert block_cid(bytes.fromhex("8102")) == "bafyreihdb57fdysx5h35urvxz64ros7zvywshber7id6t6c6fek37jgyfe"

    def test_every_digest_gives_a_cid_that_is_accepted(self) -> None:
        for digest in (bytes(32), b"\xff" * 32, *(hashlib.sha256(bytes([n])).digest() for n in range(50))):
            check_file_cid(cid_text(b"\x01\x55\x12\x20" + digest))
            check_file_cid(cid_text(b"\x01\x70\x12\x20" + digest))
            check_block_cid(cid_text(b"\x01\x71\x12\x20" + digest))

    @pytest.mark.parametrize(
        "text",
        ["", "../../../etc/passwd", EMPTY.upper(), EMPTY + "\n", EMPTY[:-1], EMPTY + "a", EMPTY[:-1] + "v"]
        + [cid_text(prefix + bytes(32)) for prefix in (b"\x01\x55\x13\x20", b"\x01\x72\x12\x20", b"\x02\x55\x12\x20")]
        + ["b" + base64.b32encode(b"\x01\x55\x12\x20" + bytes(31)).decode().lower().rstrip("=")],
    )
    def test_text_that_is_no_cid_of_ours_is_refused(self, text: str) -> None:
        for check in (check_file_cid, check_block_cid):
            with pytest.raises(IntegrityError, match="CIDv1"):
                check(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "content"
    LocalStore.create(folder)
    return folder


@pytest.fixture
def store(folder: Path) -> ContentStore:
    return open_store(f"local:{folder}")


def writer_of(content: bytes, step: int = 1000) -> Callable[[BinaryIO], None]:
    def write(sink: BinaryIO) -> None:
        for start in range(0, len(content), step):
            assert sink.write(content[start : start + step]) == len(content[start : start + step])

    return write


def put(store: ContentStore, *objects: bytes, blocks: tuple[bytes, ...] = ()) -> list[str]:
    with store.begin() as batch:
        cids = [batch.add_object(writer_of(content)).cid for content in objects]
        cids += [batch.add_block(block) for block in blocks]
        batch.commit()
    return cids


def get(store: ContentStore, cid: str) -> bytes:
    with store.open(cid) as file:
        verify_cid(file, cid)
        file.seek(0)
        return file.read()


class TestStore:
    def test_committed_objects_and_blocks_are_held(self, store: ContentStore) -> None:
        first, second, block = put(store, stream(5), stream(2_500_000), blocks=(b"\x81\x02",))
        assert get(store, first) == stream(5)
        assert get(store, second) == stream(2_500_000)
        assert store.get_block(block) == b"\x81\x02"

    def test_object_is_one_file_under_its_cid(self, store: ContentStore, folder: Path) -> None:
        cid, block = put(store, b"hello world", blocks=(b"\x81\x02",))
        assert cid == ABSENT
        assert (folder / "objects" / ABSENT[-2:] / ABSENT).read_bytes() == b"hello world"
        assert (folder / "blocks" / block[-2:] / block).read_bytes() == b"\x81\x02"

    def test_batch_tells_cid_and_size_while_writing(self, store: ContentStore) -> None:
        with store.begin() as batch:
            stored = batch.add_object(writer_of(stream(2_500_000)))
        assert stored.cid == cid_of(io.BytesIO(stream(2_500_000)))
        assert stored.size == 2_500_000

    def test_sink_takes_any_buffer_whole(self, store: ContentStore) -> None:
        with store.begin() as batch:
            stored = batch.add_object(lambda sink: writer_of(memoryview(stream(5000)))(sink))  # type: ignore[arg-type]
        assert stored.cid == cid_of(io.BytesIO(stream(5000)))

    def test_batch_left_without_commit_is_discarded(self, store: ContentStore, folder: Path) -> None:
        with store.begin() as batch:
            cid = batch.add_object(writer_of(b"hello world")).cid
            block = batch.add_block(b"\x81\x02")
        with pytest.raises(NotHeld):
            store.open(cid)
        with pytest.raises(NotHeld):
            store.get_block(block)
        assert list((folder / "staging").iterdir()) == []

    def test_object_whose_writer_fails_is_discarded_and_the_batch_goes_on(self, store: ContentStore) -> None:
        def failing(sink: BinaryIO) -> None:
            sink.write(stream(100_000))
            raise IntegrityError("source")

        with store.begin() as batch:
            kept = [batch.add_object(writer_of(b"before")).cid]
            with pytest.raises(IntegrityError, match="source"):
                batch.add_object(failing)
            kept.append(batch.add_object(writer_of(b"after")).cid)
            batch.commit()
        assert [get(store, cid) for cid in kept] == [b"before", b"after"]
        with pytest.raises(NotHeld):
            store.open(cid_of(io.BytesIO(stream(100_000))))

    def test_same_content_again_is_the_same_object(self, store: ContentStore) -> None:
        assert put(store, b"twice", b"twice") == put(store, b"twice") * 2
        assert get(store, put(store, b"twice")[0]) == b"twice"

    def test_writing_again_repairs_a_damaged_copy(self, store: ContentStore, folder: Path) -> None:
        (cid,) = put(store, b"hello world")
        (folder / "objects" / cid[-2:] / cid).write_bytes(b"hello worlds")
        put(store, b"hello world")
        assert get(store, cid) == b"hello world"

    @pytest.mark.parametrize("position", [0, 1_048_575, 1_048_576, 2_499_999])
    def test_flipped_byte_is_found(self, store: ContentStore, folder: Path, position: int) -> None:
        (cid,) = put(store, stream(2_500_000))
        place = folder / "objects" / cid[-2:] / cid
        damaged = bytearray(place.read_bytes())
        damaged[position] ^= 0x01
        place.write_bytes(damaged)
        with store.open(cid) as file, pytest.raises(IntegrityError, match=f"expected {cid}, got bafybei"):
            verify_cid(file, cid)

    def test_flipped_byte_in_a_block_is_found(self, store: ContentStore, folder: Path) -> None:
        (cid,) = put(store, blocks=(b"\x81\x02",))
        (folder / "blocks" / cid[-2:] / cid).write_bytes(b"\x81\x03")
        with pytest.raises(IntegrityError, match=f"expected {cid}"):
            store.get_block(cid)

    def test_what_is_missing_is_not_held(self, store: ContentStore) -> None:
        with pytest.raises(NotHeld, match=ABSENT):
            store.open(ABSENT)
        with pytest.raises(NotHeld):
            store.get_block(block_cid(b"\x80"))

    def test_name_that_is_no_cid_opens_nothing(self, store: ContentStore, folder: Path) -> None:
        (folder / "secret").write_bytes(b"secret")
        for name in ("../secret", "/etc/passwd", "", block_cid(b"\x80")):
            with pytest.raises(IntegrityError):
                store.open(name)
        for name in ("../secret", ABSENT):
            with pytest.raises(IntegrityError):
                store.get_block(name)

    def test_unmounted_store_is_away_and_not_empty(self, store: ContentStore, folder: Path) -> None:
        (cid,) = put(store, b"hello world")
        folder.rename(folder.with_name("elsewhere"))
        with pytest.raises(ContentAway, match="mounted"):
            store.open(cid)
        with pytest.raises(ContentAway):
            store.begin()

    def test_read_error_is_the_stores(self, store: ContentStore) -> None:
        (cid,) = put(store, b"hello world")
        with store.open(cid) as file:
            os.close(file.fileno())
            with pytest.raises(ContentAway):
                file.read(5)
            with pytest.raises(ContentAway):
                file.read()
            os.dup2(os.open(os.devnull, os.O_RDONLY), file.fileno())

    def test_recover_discards_what_a_dead_process_left(self, store: ContentStore, folder: Path) -> None:
        batch = store.begin()  # never left: its process was killed
        batch.add_object(writer_of(b"hello world"))
        (cid,) = put(store, b"kept")
        again = LocalStore(folder)
        again.recover()
        assert list((folder / "staging").iterdir()) == []
        assert get(again, cid) == b"kept"
        with pytest.raises(NotHeld):
            again.open(ABSENT)

    def test_its_near_copies_are_its_own(self, store: ContentStore) -> None:
        assert store.near is store
        store.check()

    def test_sound_copy_needs_no_repair_and_a_bad_one_has_no_other(self, store: ContentStore, folder: Path) -> None:
        cid, block = put(store, b"hello world", blocks=(BLOCK,))
        assert [*store.repair(cid, block), *store.repair(block, block)] == []
        for part, bad in (("objects", cid), ("blocks", block)):
            place = folder / part / bad[-2:] / bad
            place.write_bytes(b"hello worlds")
            with pytest.raises(IntegrityError, match=f"expected {bad}"):
                store.repair(bad, block)
            place.unlink()
            with pytest.raises(NotHeld, match=bad):
                store.repair(bad, block)
        with pytest.raises(IntegrityError, match="CIDv1"):
            store.repair("../secret", block)

    def test_what_is_forgotten_is_held_no_more_and_the_rest_is(self, store: ContentStore, folder: Path) -> None:
        cid, root, kept = put(store, b"hello world", blocks=(BLOCK, b"\x80"))
        store.forget([root], [cid])
        store.forget([root], [cid, ABSENT])
        assert [path for path in folder.rglob("b*") if path.is_file()] == [folder / "blocks" / kept[-2:] / kept]
        for gone in (cid, root):
            with pytest.raises(NotHeld):
                store.repair(gone, root)

    def test_a_folder_fetches_nothing_and_lets_nothing_expire(self, store: ContentStore) -> None:
        (cid,) = put(store, b"hello world")
        with pytest.raises(ConfigError, match="kubo:"):
            store.keep(ROOT)
        store.expire(ROOT, [cid], 1 << 62)
        assert get(store, cid) == b"hello world"

    def test_a_dropped_object_is_not_held_until_it_is_written_again(self, folder: Path) -> None:
        store = LocalStore(folder)
        before_us = time.time_ns() // 1000 - 1_000_000
        (cid,) = put(store, b"hello world")
        written_us = store.written_us(cid)
        assert written_us is not None
        assert before_us < written_us < before_us + 60_000_000
        store.drop(cid)
        store.drop(cid)
        assert (store.is_dropped(cid), store.written_us(cid), store.is_dropped(EMPTY)) == (True, None, False)
        with pytest.raises(NotHeld):
            store.open(cid)
        assert list((folder / "staging").iterdir()) == []
        put(store, b"hello world")
        assert not store.is_dropped(cid)
        assert get(store, cid) == b"hello world"
        store.drop(cid)
        store.forget([], [cid])
        assert not store.is_dropped(cid)

    def test_nothing_is_forgotten_under_a_name_that_is_no_cid(self, store: ContentStore, folder: Path) -> None:
        (folder / "secret").write_bytes(b"secret")
        (cid,) = put(store, b"hello world")
        with pytest.raises(IntegrityError, match="CIDv1"):
            store.forget([], [cid, "../secret"])
        assert (folder / "secret").exists()
        assert get(store, cid) == b"hello world"

    def test_unmounted_store_forgets_nothing(self, store: ContentStore, folder: Path) -> None:
        (cid,) = put(store, b"hello world")
        folder.rename(folder.with_name("elsewhere"))
        for call in (store.check, lambda: store.forget([], [cid]), lambda: store.repair(cid, ROOT)):
            with pytest.raises(ContentAway, match="mounted"):
                call()

    def test_store_is_opened_by_its_url(self, folder: Path) -> None:
        (cid,) = put(open_store(f"local:{folder}"), b"kept")
        assert get(open_store(f"local:{folder}"), cid) == b"kept"

    @pytest.mark.parametrize("url", ["s3:bucket", "local", "local:", "/var/lib", ""])
    def test_unknown_scheme_names_the_known_ones(self, url: str) -> None:
        with pytest.raises(ConfigError, match="local:"):
            open_store(url)

    def test_missing_folder_is_a_wrong_configuration(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no-such-disk"):
            open_store(f"local:{tmp_path / 'no-such-disk'}")

    def test_the_mount_point_of_a_disk_is_no_empty_store(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="mount its disk"):
            open_store(f"local:{tmp_path}")
        assert list(tmp_path.iterdir()) == []

    def test_a_store_is_not_made_twice(self, folder: Path) -> None:
        with pytest.raises(ContentAway):
            LocalStore.create(folder)


OBJECTS = (stream(300_000), b"hello world")
BLOCK = b"\x81\x02"
CIDS = [cid_of(io.BytesIO(content)) for content in OBJECTS]


def add_all(batch: Batch) -> None:
    for content in OBJECTS:
        batch.add_object(writer_of(content))
    batch.add_block(BLOCK)


class Boundary:
    """Lets one call of an os function fail, before or after it took effect."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, number: int, persisted: bool) -> None:
        self.calls = 0
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls != number:
                return real(*args, **kwargs)
            if persisted:
                real(*args, **kwargs)
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, name, call)


def test_an_object_can_be_read_back_before_its_commit(store: ContentStore) -> None:
    with store.begin() as batch:
        stored = batch.add_object(writer_of(b"hello world"))
        with batch.open(stored.cid) as file:
            assert file.read() == b"hello world"
        with pytest.raises(NotHeld):
            store.open(stored.cid)
        with pytest.raises(NotHeld):
            batch.open(CIDS[0])


# Three files and their folders with two parents are synced, three names given, and three folders made.
# A folder that mkdir made although it failed is a folder that is there.
BOUNDARIES = [
    *(
        (name, number, persisted)
        for name, last in (("fsync", 8), ("replace", 3))
        for number in range(1, last + 1)
        for persisted in (False, True)
    ),
    *(("mkdir", number, False) for number in (1, 2, 3)),
]


class TestFailingCommit:
    @pytest.mark.parametrize(("name", "number", "persisted"), BOUNDARIES)
    def test_commit_that_fails_says_so_and_can_be_repeated(
        self, store: ContentStore, folder: Path, name: str, number: int, persisted: bool
    ) -> None:
        with pytest.MonkeyPatch.context() as patch, store.begin() as batch:
            add_all(batch)
            Boundary(patch, name, number, persisted)
            with pytest.raises(ContentAway, match="Input/output error"):
                batch.commit()
        assert list((folder / "staging").iterdir()) == []
        for cid, content in zip(CIDS, OBJECTS, strict=True):
            with contextlib.suppress(NotHeld):
                assert get(store, cid) == content  # whole, or not at all
        assert put(store, *OBJECTS, blocks=(BLOCK,)) == [*CIDS, block_cid(BLOCK)]
        assert [get(store, cid) for cid in CIDS] == list(OBJECTS)
        assert store.get_block(block_cid(BLOCK)) == BLOCK

    def test_boundaries_are_all_there_are(self, store: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
        with store.begin() as batch:
            add_all(batch)
            counted = {name: Boundary(monkeypatch, name, 0, False) for name in ("fsync", "replace", "mkdir")}
            batch.commit()
        assert [(name, each.calls) for name, each in counted.items()] == [("fsync", 8), ("replace", 3), ("mkdir", 3)]

    def test_bytes_are_synced_before_names_and_folders_after(
        self, store: ContentStore, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[int] = []
        names: dict[int, int] = {}
        real_fsync, real_replace = os.fsync, os.replace

        def fsync(descriptor: int) -> None:
            real_fsync(descriptor)
            synced.append(os.fstat(descriptor).st_ino)

        def replace(source: Path, target: Path) -> None:
            assert os.stat(source).st_ino in synced
            names[os.stat(target.parent).st_ino] = len(synced)
            real_replace(source, target)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "replace", replace)
        put(store, *OBJECTS, blocks=(BLOCK,))
        assert len(names) == 3
        for inode, at in names.items():
            assert inode in synced[at:]
        for part in ("objects", "blocks"):
            assert (folder / part).stat().st_ino in synced[max(names.values()) :]

    @pytest.mark.parametrize(("name", "number"), [("unlink", 1), ("unlink", 2), ("fsync", 1), ("fsync", 2)])
    @pytest.mark.parametrize("persisted", [False, True])
    def test_forgetting_that_fails_says_so_and_is_durable_when_repeated(
        self, store: ContentStore, folder: Path, name: str, number: int, persisted: bool
    ) -> None:
        cid, root = put(store, b"hello world", blocks=(BLOCK,))
        with pytest.MonkeyPatch.context() as patch:
            Boundary(patch, name, number, persisted)
            with pytest.raises(ContentAway, match="Input/output error"):
                store.forget([root], [cid])
        with pytest.MonkeyPatch.context() as patch:
            synced = Boundary(patch, "fsync", 0, False)
            store.forget([root], [cid])
            assert synced.calls == 2
        assert not [path for path in folder.rglob("b*") if path.is_file()]

    def test_full_disk_while_writing_is_the_stores(self, store: ContentStore) -> None:
        # /dev/full stands in for the staged file: every write to it fails with ENOSPC.
        assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
        with store.begin() as batch:
            (Path(batch._staging) / "0").symlink_to("/dev/full")  # type: ignore[attr-defined]
            with pytest.raises(ContentAway, match="No space left"):
                batch.add_object(writer_of(b"hello world"))
            with pytest.raises(ContentAway, match="No space left"):
                batch.add_block(BLOCK)
