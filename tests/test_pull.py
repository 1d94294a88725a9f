"""A research centre pulls: what it gets, what it believes, what it tells, and what is left when something is wrong."""

import hashlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Command, runner
from damage import flip
from gate_world import DAY_S, anchor_conflict, make_world
from key_world import PRIVATE, KeyWorld, served
from node_make import drain, part10, store, variant
from pull_world import Centre, erase
from pydicom import dcmread

from orthanc_ledger import merkle, tokens
from orthanc_ledger.content import ContentStore, cbor, open_store
from orthanc_ledger.content.cbor import CID
from orthanc_ledger.errors import ContentAway, IntegrityError, LedgerAway, NotHeld, Unreadable
from orthanc_ledger.holdings import Holdings
from orthanc_ledger.index import Supersession
from orthanc_ledger.instance import open_instance
from orthanc_ledger.key_client import Denied
from orthanc_ledger.key_file import InstanceKeys, KeyFile, ReleasedKeys
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.ledger.identity import issue, load_identity, read_certificate, serial_of, tls_files
from orthanc_ledger.manifest import Manifest
from orthanc_ledger.recipient_key import PrivateKey
from orthanc_ledger.spool import CONFLICTS
from orthanc_ledger.tokens import ObjectKeys

OTHER = PrivateKey(b"o" * 32)


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Centre]:
    with served(make_world(tmp_path)) as keys:
        yield Centre(keys, tmp_path / "centre")


@pytest.fixture(scope="module")
def unspoiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    """For tests that write nothing and leave the study as it is; each has its own request."""
    folder = tmp_path_factory.mktemp("world")
    with served(make_world(folder)) as keys:
        yield Centre(keys, folder / "centre")


@pytest.fixture
def run(centre: Centre, capsys: pytest.CaptureFixture[str]) -> Command:
    return runner(capsys, "--config", centre.configure())


class Rogue:
    """A hospital that answers something else than its node did."""

    def __init__(self, keys: KeyWorld, change: Callable[[KeyFile, ReleasedKeys], KeyFile | bytes]) -> None:
        self._keys = keys
        self._change = change

    def studies(self, request: bytes) -> list[bytes]:
        return [self._keys.study]

    def keys(self, request: bytes, study: bytes, public_key: bytes) -> bytes:
        file = KeyFile.decode(self._keys.client().keys(request, study, public_key))
        changed = self._change(file, file.open(PRIVATE))
        return changed if isinstance(changed, bytes) else changed.encode()


def signed(file: KeyFile, keys: ReleasedKeys, identity: Path, recipient: PrivateKey = PRIVATE) -> KeyFile:
    """A key file of that release with these keys, whoever signs."""
    return KeyFile.make(file.release, keys, recipient.public, load_identity(identity))


def test_the_files_are_what_the_hospital_received(centre: Centre) -> None:
    world = centre.keys.world
    held = centre.pull(centre.keys.request())
    assert (held.outcome, held.objects, held.told) == ("complete", 3, True)
    k_study = world.node.keyring.ensure_study(world.study_uid).k_study
    names = {f"{tokens.instance_token(k_study, uid).hex()}.dcm": uid for uid in world.sop_uids}
    assert {path.name for path in centre.files} == set(names)
    assert {path.parent for path in centre.files} == {held.folder}
    for path in centre.files:
        read = dcmread(path)
        assert read.SOPInstanceUID == names[path.name]
        with path.open("rb") as file:
            received = part10(variant(SOPInstanceUID=read.SOPInstanceUID, InstanceNumber=str(read.InstanceNumber)))
            start = open_instance(file).data_set_offset
        sent = received[-(path.stat().st_size - start) :]
        assert path.read_bytes()[start:] == sent


def test_what_was_pulled_is_told_to_the_ledger_once(centre: Centre) -> None:
    request = centre.keys.request()
    held = centre.pull(request)
    assert centre.told("LogRetrieval") == [{"release": held.release, "outcome": "complete"}]
    assert centre.pull(request) == replace(held, told=True)
    assert len(centre.told("LogRetrieval")) == len(centre.told("LogRelease")) == 1


def test_again_asks_for_a_new_release_in_a_folder_of_its_own(centre: Centre) -> None:
    request = centre.keys.request()
    first, second = centre.pull(request), centre.pull(request, again=True)
    assert first.release != second.release
    assert len(centre.files) == 6
    assert len(centre.told("LogRetrieval")) == 2


def test_only_its_owner_may_look_into_a_studys_folder(centre: Centre) -> None:
    held = centre.pull(centre.keys.request())
    assert stat.S_IMODE(held.folder.stat().st_mode) == 0o700


def test_a_deleted_folder_is_pulled_anew(centre: Centre) -> None:
    request = centre.keys.request()
    shutil.rmtree(centre.pull(request).folder)
    assert centre.pull(request).folder.is_dir()


def correct(centre: Centre) -> None:
    """Supersede the first object by one of another patient's name, confirmed by the custodian."""
    node, world = centre.keys.world.node, centre.keys.world
    store(node, variant(SOPInstanceUID=world.sop_uids[0], InstanceNumber="1", PatientName="Corrected"))
    (name,) = node.spool.names(CONFLICTS)
    holder = node.index.instance(name.partition(".")[0])
    assert holder is not None
    manifest = str(holder.manifest)
    node.index.keep_supersession(Supersession(name, holder.claim, "metadata-corrected", "decided", manifest))
    for _ in range(3):
        drain(node)
    (proposed,) = node.index.supersessions("proposed")
    world.ledger("custodian").submit("ConfirmSupersede", {"id": proposed.ledger_id})
    drain(node)


def test_a_confirmed_correction_is_pulled_in_the_place_of_the_first(centre: Centre) -> None:
    correct(centre)
    held = centre.pull(centre.keys.request())
    assert sorted(str(dcmread(path).PatientName) for path in held.folder.iterdir()) == ["CompressedSamples^MR1"] * 2 + [
        "Corrected"
    ]


def test_a_second_anchor_of_an_instance_is_never_taken_for_the_first(centre: Centre) -> None:
    """Not even when a node of the hospital releases it, and gives its keys."""
    keys, world = centre.keys, centre.keys.world
    request = keys.request(future=True)
    store(world.node, variant(SOPInstanceUID=world.sop_uids[0], PatientID="SOMEBODY ELSE"))
    manifest = anchor_conflict(world)
    with pytest.raises(IntegrityError, match="not the one that counts"):
        centre.pull(request, Replay(released(keys, request, manifest)))
    assert centre.files == []
    assert [told["outcome"] for told in centre.told("LogRetrieval")] == ["failed"]


@pytest.mark.parametrize("differs", [{"root": bytes(32)}, {"count": 2}])
def test_an_earlier_manifest_of_another_root_or_count_than_anchored_ends_the_pull(
    centre: Centre, differs: dict[str, Any]
) -> None:
    """Of the hospital's, by its CID, which it does not release."""
    keys, world = centre.keys, centre.keys.world
    request = keys.request(future=True)
    store(world.node, variant(SOPInstanceUID=world.sop_uids[0], PatientID="SOMEBODY ELSE"))
    anchor_conflict(world, **differs)
    store(world.node, variant(SOPInstanceUID="1.2.826.0.1.3680043.10.1.4", InstanceNumber="4"))
    drain(world.node)
    (last,) = world.node.index.select(instances=["1.2.826.0.1.3680043.10.1.4"])
    manifest = world.node.manifests.read(str(last.manifest), keys.study)
    with pytest.raises(IntegrityError, match="records as anchored"):
        centre.pull(request, Replay(released(keys, request, manifest)))
    assert centre.files == []


def released(keys: KeyWorld, request: bytes, manifest: Manifest) -> bytes:
    """A key file of a manifest's one object, which a node of the hospital releases without having looked."""
    world = keys.world
    (record,) = manifest.records
    args = {
        "request": request,
        "study": keys.study,
        "anchors": [manifest.cid],
        "instancesRoot": merkle.root([record.instance]),
        "count": 1,
        "standingVersion": 0,
        "node": {"organisation": "ResearchMSP", "aeTitle": "RESEARCH1"},
    }
    release = world.ledger("owner", "node").submit("LogRelease", args, b"n" * 16).result["release"]
    opens = tokens.object_keys(world.node.keyring.batch_key(manifest.key_id), record.instance)
    rows = (InstanceKeys(record.instance, manifest.cid, record.object, opens),)
    return KeyFile.make(
        release, ReleasedKeys(request, keys.study, rows), PRIVATE.public, load_identity(keys.identity("owner"))
    ).encode()


class TestKeyFilesThatDoNotCount:
    """Attacks: nothing is written, nothing kept, and nobody is asked for an object."""

    def refused(self, centre: Centre, change: Callable[[KeyFile, ReleasedKeys], Any], why: str) -> None:
        request = centre.keys.request()
        with pytest.raises((IntegrityError, Unreadable), match=why):
            centre.pull(request, Rogue(centre.keys, change))
        assert centre.files == []
        assert centre.holdings.latest(request, centre.keys.study) is None

    def owner(self, centre: Centre) -> Path:
        return centre.keys.identity("owner")

    def test_for_another_recipient(self, unspoiled: Centre) -> None:
        owner = self.owner(unspoiled)
        self.refused(unspoiled, lambda file, keys: signed(file, keys, owner, OTHER), "another recipient")

    def test_for_another_recipient_under_this_ones_name(self, unspoiled: Centre) -> None:
        def change(file: KeyFile, keys: ReleasedKeys) -> KeyFile:
            other = signed(file, keys, self.owner(unspoiled), OTHER)
            renamed = replace(other, recipient=PRIVATE.public.digest)
            return replace(renamed, signature=load_identity(self.owner(unspoiled)).sign(renamed.signed))

        self.refused(unspoiled, change, "do not open")

    def test_stripped_of_its_signature(self, unspoiled: Centre) -> None:
        self.refused(unspoiled, lambda file, _: replace(file, signature=b""), "signature does not count")
        self.refused(
            unspoiled,
            lambda file, _: cbor.encode({n: v for n, v in cbor.decode(file.encode()).items() if n != "signature"}),
            "not a key file",
        )

    def test_signed_by_the_research_centre_itself(self, unspoiled: Centre) -> None:
        research = unspoiled.keys.identity()
        self.refused(unspoiled, lambda file, keys: signed(file, keys, research), "signer's role")

    def test_signed_by_the_custodian(self, unspoiled: Centre) -> None:
        custodian = unspoiled.keys.identity("custodian")
        self.refused(unspoiled, lambda file, keys: signed(file, keys, custodian), "signer's role")

    def test_signed_by_another_of_the_hospital_than_who_released(self, unspoiled: Centre) -> None:
        person = unspoiled.keys.identity("owner", "person")
        self.refused(unspoiled, lambda file, keys: signed(file, keys, person), "signer: not the release's")

    def test_with_another_certificate_than_its_signatures(self, unspoiled: Centre) -> None:
        certificate = load_identity(unspoiled.keys.identity("owner", "person")).certificate
        self.refused(unspoiled, lambda file, _: replace(file, certificate=certificate), "signature does not count")
        self.refused(unspoiled, lambda file, _: replace(file, certificate=b"none"), "signature does not count")

    def test_signed_by_an_expired_certificate(self, centre: Centre) -> None:
        expired = issue(centre.keys.organisation("owner"), "expired", "node", days=1)
        centre.keys.world.later_s = 2 * DAY_S
        self.refused(
            centre, lambda file, keys: signed(file, keys, expired), "signature does not count: .*not valid now"
        )

    def test_signed_by_a_revoked_certificate(self, centre: Centre) -> None:
        """The node's own, so that all else fits."""
        keys = centre.keys
        request = keys.request()
        data = keys.client().keys(request, keys.study, PRIVATE.public.raw)
        serial = serial_of(read_certificate(tls_files(keys.identity("owner"))[0]))
        keys.world.ledger("owner").submit("RevokeCertificate", {"serial": serial})
        with pytest.raises(IntegrityError, match=r"signature does not count: .*revoked"):
            centre.pull(request, Replay(data))
        assert centre.files == []

    def test_of_another_release(self, unspoiled: Centre) -> None:
        """The first request's key file, as the answer to the second."""
        keys = unspoiled.keys
        first = keys.ask(keys.request())
        with pytest.raises(IntegrityError, match="request: not the release's"):
            unspoiled.pull(keys.request(), Replay(first))

    def test_of_a_release_that_is_on_no_ledger(self, centre: Centre) -> None:
        owner = self.owner(centre)
        rogue = Rogue(centre.keys, lambda file, keys: signed(replace(file, release=b"r" * 32), keys, owner))
        with pytest.raises(LedgerAway, match="is not on the ledger"):
            centre.pull(centre.keys.request(), rogue)

    def test_of_another_study_of_the_same_request(self, centre: Centre) -> None:
        keys = centre.keys
        other = keys.world.node.keyring.ensure_study(keys.world.add_study(5)).token
        request = keys.request(studies=[keys.study, other])
        with pytest.raises(IntegrityError, match="study: not the release's"):
            centre.pull(request, Replay(keys.ask(request, other)))

    @pytest.mark.parametrize("other", ["request", "study"])
    def test_of_another_release_whose_keys_are_put_under_this_ones_name(self, centre: Centre, other: str) -> None:
        """The node itself seals and signs so."""
        keys = centre.keys
        study = keys.world.node.keyring.ensure_study(keys.world.add_study(5)).token
        request = keys.request(studies=[keys.study, study])
        first = KeyFile.decode(keys.ask(request, study) if other == "study" else keys.ask(keys.request()))
        named = replace(first.open(PRIVATE), request=request, study=keys.study)
        with pytest.raises(IntegrityError, match=f"{other}: not the release's"):
            centre.pull(request, Replay(signed(first, named, self.owner(centre)).encode()))

    def test_with_rows_exchanged(self, unspoiled: Centre) -> None:
        """The instances' order is fixed, so their objects are exchanged; the node's own signature fits."""

        def change(file: KeyFile, keys: ReleasedKeys) -> KeyFile:
            first, second, *rest = keys.instances
            swapped = (replace(first, object=second.object), replace(second, object=first.object), *rest)
            return signed(file, replace(keys, instances=swapped), self.owner(unspoiled))

        request = unspoiled.keys.request()
        with pytest.raises(IntegrityError, match="not the one that counts"):
            unspoiled.pull(request, Rogue(unspoiled.keys, change))
        assert unspoiled.files == []

    @pytest.mark.parametrize("spoil", ["more", "fewer", "other"])
    def test_with_other_instances_than_the_releases(self, unspoiled: Centre, spoil: str) -> None:
        def change(file: KeyFile, keys: ReleasedKeys) -> KeyFile:
            last = keys.instances[-1]
            extra = InstanceKeys(b"\xff" * 32, last.manifest, last.object, ObjectKeys(b"s" * 32, b"t" * 32))
            rows = {
                "more": (*keys.instances, extra),
                "fewer": keys.instances[:-1],
                "other": (*keys.instances[:-1], extra),
            }
            return signed(file, replace(keys, instances=rows[spoil]), self.owner(unspoiled))

        self.refused(unspoiled, change, "instancesRoot: not the release's")

    def test_with_a_manifest_that_was_not_released(self, unspoiled: Centre) -> None:
        other = other_manifest(unspoiled)

        def change(file: KeyFile, keys: ReleasedKeys) -> KeyFile:
            rows = tuple(replace(row, manifest=other) for row in keys.instances)
            return signed(file, replace(keys, instances=rows), self.owner(unspoiled))

        self.refused(unspoiled, change, "anchors: not the release's")

    @pytest.mark.parametrize("cut", [0, 1, 100, 1000, -1])
    def test_cut_off(self, unspoiled: Centre, cut: int) -> None:
        self.refused(unspoiled, lambda file, _: file.encode()[:cut], "not a key file")


class TestWhatIsFetched:
    """Objects and manifests that are not what was anchored."""

    @pytest.fixture
    def content(self, centre: Centre, tmp_path: Path) -> ContentStore:
        """A store of the research centre's own."""
        folder = Path(centre.keys.world.node.config.content.removeprefix("local:"))
        shutil.copytree(folder, tmp_path / "own")
        return open_store(f"local:{tmp_path / 'own'}")

    def objects(self, tmp_path: Path) -> list[Path]:
        return sorted(path for path in (tmp_path / "own" / "objects").rglob("*") if path.is_file())

    def test_a_changed_object_is_put_aside_and_reported(
        self, centre: Centre, content: ContentStore, tmp_path: Path
    ) -> None:
        changed = self.objects(tmp_path)[1]
        flip(changed)
        held = centre.pull(centre.keys.request(), content=content)
        assert (held.outcome, centre.files) == ("failed", [])
        (aside,) = [path for path in centre.quarantine.rglob("*") if path.is_file()]
        assert aside.read_bytes() == changed.read_bytes()
        assert aside.parent.name == held.release.hex()
        (report,) = centre.told("ReportTamper")
        assert (report["release"], aside.name) == (held.release, f"{report['instance'].hex()}.sealed")
        assert centre.told("LogRetrieval") == [{"release": held.release, "outcome": "failed"}]

    def test_no_more_is_fetched_of_an_object_than_its_record_says(self, centre: Centre, content: ContentStore) -> None:
        """Some blocks that link to each other over and over are as much as the hospital likes."""
        asked = []

        class Endless:
            """The content store; each object is larger than is asked for."""

            def __getattr__(self, name: str) -> Any:
                return getattr(content, name)

            def open(self, cid: str, size: int) -> Any:
                asked.append((cid, size))
                raise IntegrityError("more")

            def repair(self, cid: str, root: str, size: int) -> Any:
                return self.open(cid, size)

        assert centre.pull(centre.keys.request(), content=Endless()).outcome == "failed"  # type: ignore[arg-type]
        [row] = all_rows(centre.keys.world.ledger("owner"), "AnchorsOfStudy", {"study": centre.keys.study})
        records = centre.keys.world.node.manifests.anchored(row).records
        assert set(asked) == {(record.object, record.sealed_size) for record in records}
        assert len(asked) > len(records), "opened, and repaired"

    def test_what_is_reported_shows_no_digest_of_the_scan(self, centre: Centre) -> None:
        """Keys of another object: the sealed bytes are as anchored, and do not open."""
        wrong = ObjectKeys(b"w" * 32, b"x" * 32)

        def change(file: KeyFile, keys: ReleasedKeys) -> KeyFile:
            rows = (replace(keys.instances[0], keys=wrong), *keys.instances[1:])
            return signed(file, replace(keys, instances=rows), centre.keys.identity("owner"))

        held = centre.pull(centre.keys.request(), Rogue(centre.keys, change))
        assert (held.outcome, centre.files) == ("failed", [])
        (aside,) = [path for path in centre.quarantine.rglob("*") if path.is_file()]
        (report,) = centre.told("ReportTamper")
        sha256 = hashlib.sha256(aside.read_bytes()).digest()
        assert report["observed"] == tokens.seen(wrong.salt, sha256) != sha256

    def test_after_a_failure_a_new_release_is_asked_for(
        self, centre: Centre, content: ContentStore, tmp_path: Path
    ) -> None:
        request, changed = centre.keys.request(), self.objects(tmp_path)[0]
        sealed = changed.read_bytes()
        os.chmod(changed, 0o600)
        changed.write_bytes(b"")
        failed = centre.pull(request, content=content)
        changed.write_bytes(sealed)
        held = centre.pull(request, content=content)
        assert (failed.outcome, held.outcome) == ("failed", "complete")
        assert failed.release != held.release

    def test_a_missing_object_is_waited_for(self, centre: Centre, content: ContentStore, tmp_path: Path) -> None:
        """Not here yet is no tampering: the same key file serves once it is."""
        request, missing = centre.keys.request(), self.objects(tmp_path)[2]
        missing.rename(tmp_path / "missing")
        with pytest.raises(ContentAway, match="not in the own content store"):
            centre.pull(request, content=content)
        assert (centre.told("LogRetrieval"), centre.told("ReportTamper")) == ([], [])
        (tmp_path / "missing").rename(missing)
        assert centre.pull(request, content=content).outcome == "complete"
        assert len(centre.told("LogRelease")) == 1

    def test_nothing_is_served_half(self, centre: Centre, content: ContentStore, tmp_path: Path) -> None:
        missing = self.objects(tmp_path)[2]
        missing.unlink()
        with pytest.raises(ContentAway):
            centre.pull(centre.keys.request(), content=content)
        assert [path for path in centre.files if not path.parent.name.endswith(".part")] == []

    def test_a_changed_manifest_ends_the_pull(self, centre: Centre, content: ContentStore, tmp_path: Path) -> None:
        for block in (path for path in (tmp_path / "own" / "blocks").rglob("*") if path.is_file()):
            flip(block)
        with pytest.raises(IntegrityError):
            centre.pull(centre.keys.request(), content=content)
        assert centre.files == []
        assert [told["outcome"] for told in centre.told("LogRetrieval")] == ["failed"]

    def test_an_earlier_anchors_manifest_must_be_readable(
        self, centre: Centre, content: ContentStore, tmp_path: Path
    ) -> None:
        """Without it nobody can say which record of an instance is the first."""
        world = centre.keys.world
        ds = variant(SOPInstanceUID="1.2.826.0.1.3680043.10.1.4", InstanceNumber="4")
        store(world.node, ds)
        drain(world.node)
        (tmp_path / "own").rename(tmp_path / "older")
        shutil.copytree(Path(world.node.config.content.removeprefix("local:")), tmp_path / "own")
        first = next(iter(sorted((tmp_path / "older" / "blocks").rglob("bafy*"))))
        first_here = tmp_path / "own" / first.relative_to(tmp_path / "older")
        first_here.unlink()
        with pytest.raises(ContentAway):
            centre.pull(centre.keys.request(), content=content)


class Replay:
    """Answers one key file, and denies what comes after it."""

    def __init__(self, data: bytes) -> None:
        self._answers = [data]

    def studies(self, request: bytes) -> list[bytes]:
        return []

    def keys(self, request: bytes, study: bytes, public_key: bytes) -> bytes:
        if not self._answers:
            raise Denied("refused: no approval")
        return self._answers.pop()


class TestOldKeyFiles:
    """One that was got in time, used later."""

    @pytest.fixture
    def begun(self, centre: Centre) -> bytes:
        """A request of which a pull broke off once it had its keys."""
        request = centre.keys.request()
        folder = Path(centre.keys.world.node.config.content.removeprefix("local:")) / "objects"
        folder.rename(folder.with_name("away"))
        folder.mkdir()
        with pytest.raises((ContentAway, NotHeld)):
            centre.pull(request)
        shutil.rmtree(folder)
        folder.with_name("away").rename(folder)
        return request

    def test_serves_while_the_approval_runs_and_nothing_changed(self, centre: Centre, begun: bytes) -> None:
        assert centre.pull(begun).outcome == "complete"
        assert len(centre.told("LogRelease")) == 1

    def test_is_not_used_once_the_approval_is_revoked(self, centre: Centre, begun: bytes) -> None:
        centre.keys.world.ledger("custodian").submit("Revoke", {"id": begun, "reason": "completed"})
        with pytest.raises(Denied, match="no approval"):
            centre.pull(begun)
        assert centre.files == []
        assert [told["outcome"] for told in centre.told("LogRetrieval")] == ["failed"]

    def test_is_not_used_once_the_approval_has_expired(self, centre: Centre, begun: bytes) -> None:
        centre.keys.world.later_s = 30 * DAY_S
        with pytest.raises(Denied, match="approval expired"):
            centre.pull(begun)
        assert centre.files == []

    def test_is_not_used_once_something_was_withdrawn(self, centre: Centre, begun: bytes) -> None:
        keys = centre.keys
        gone = tokens.instance_token(
            keys.world.node.keyring.ensure_study(keys.world.study_uid).k_study, keys.world.sop_uids[0]
        )
        args = {"study": keys.study, "instances": [gone], "reason": "113039"}
        keys.world.ledger("owner").submit("Withdraw", args, b"n" * 16)
        held = centre.pull(begun)
        assert (held.objects, f"{gone.hex()}.dcm" in {path.name for path in centre.files}) == (2, False)

    def test_of_another_version_is_asked_for_again(self, centre: Centre, begun: bytes) -> None:
        kept = centre.holdings.latest(begun, centre.keys.study)
        assert kept is not None
        with closing(sqlite3.connect(centre.folder / "pull.db")) as db, db:
            other = cbor.encode({**cbor.decode(kept.key_file or b""), "v": 2})
            db.execute("UPDATE pulls SET key_file = ?", (other,))
        assert centre.pull(begun).outcome == "complete"
        assert [told["outcome"] for told in centre.told("LogRetrieval")] == ["failed", "complete"]

    def test_still_opens_for_who_asks_no_ledger(self, centre: Centre, begun: bytes) -> None:
        """What docs/keyfile.md says: a key file opens what it opens for ever."""
        kept = centre.holdings.latest(begun, centre.keys.study)
        centre.keys.world.ledger("custodian").submit("Revoke", {"id": begun, "reason": "completed"})
        assert kept is not None
        assert len(KeyFile.decode(kept.key_file or b"").open(PRIVATE).instances) == 3


class TestTheLedgerIsAway:
    def test_what_is_held_is_told_later(self, centre: Centre) -> None:
        request = centre.keys.request()
        ledger = Path(centre.keys.world.node.config.ledger.removeprefix("embedded:"))
        away = ledger.with_suffix(".away")

        class Last:
            """The content store; with the last object the ledger goes."""

            def __init__(self, store: ContentStore) -> None:
                self._store, self._opened = store, 0

            def __getattr__(self, name: str) -> Any:
                return getattr(self._store, name)

            def open(self, cid: str, size: int) -> Any:
                self._opened += 1
                if self._opened == 3:
                    ledger.rename(away)
                return self._store.open(cid, size)

        with pytest.raises(LedgerAway):
            centre.pull(request, content=Last(centre.content))  # type: ignore[arg-type]
        assert len(centre.files) == 3
        away.rename(ledger)
        centre.pull(request)
        assert [told["outcome"] for told in centre.told("LogRetrieval")] == ["complete"]
        assert len(centre.told("LogRelease")) == 1


class TestErasure:
    def test_what_was_pulled_of_an_erased_study_goes_and_is_told(self, centre: Centre) -> None:
        held = centre.pull(centre.keys.request())
        assert centre.pulling().forget_erased() == []
        assert held.folder.is_dir()
        fetched = {
            *centre.holdings.fetched(centre.keys.study, True),
            *centre.holdings.fetched(centre.keys.study, False),
        }
        assert len(fetched) == 3 + 2  # objects, the manifest's root and its shard
        erase(centre)
        assert centre.pulling().forget_erased() == [centre.keys.study]
        assert centre.files == []
        assert not held.folder.exists()
        assert centre.told("ErasureDone") == [{"study": centre.keys.study}]
        for cid in fetched:
            with pytest.raises(NotHeld):
                (centre.content.get_block if cid.startswith("bafyrei") else centre.content.open)(cid)
        assert centre.holdings.all() == []
        assert centre.pulling().forget_erased() == []

    def test_nothing_of_it_is_left_under_data_dir(self, centre: Centre) -> None:
        held = centre.pull(centre.keys.request())
        erase(centre)
        centre.pulling().forget_erased()
        left = b"".join(path.read_bytes() for path in centre.folder.rglob("*") if path.is_file())
        for trace in (held.release, held.study, held.study.hex().encode(), held.request):
            assert trace not in left

    def test_a_manifest_that_links_to_what_no_store_can_hold_does_not_stop_it(self, centre: Centre) -> None:
        """It is the hospital's, and read before it is known to be none."""
        study, pulling = centre.keys.study, centre.pulling()
        centre.pull(centre.keys.request())
        identity = CID(bytes((1, 0x71, 0, 1)) + cbor.encode(None))
        root = {"v": 1, "study": study, "seq": 9, "key_id": bytes(16), "count": 1, "shards": [identity]}
        with centre.content.begin() as batch:
            cid = batch.add_block(cbor.encode(root))
            batch.commit()
        with pytest.raises(IntegrityError):
            pulling._manifest({"manifestCid": cid, "study": study})
        erase(centre)
        assert pulling.forget_erased() == [study]

    def test_an_erasure_that_was_only_asked_for_deletes_nothing(self, centre: Centre) -> None:
        centre.pull(centre.keys.request())
        centre.keys.world.ledger("owner").submit("RequestErase", {"study": centre.keys.study})
        assert centre.pulling().forget_erased() == []
        assert len(centre.files) == 3


class TestCommands:
    def words(self, centre: Centre, request: bytes) -> list[object]:
        return ["pull", request.hex(), "--hospital", centre.keys.url, "--key", centre.folder / "keys/private.key"]

    def test_pull_and_pulled(self, centre: Centre, run: Command) -> None:
        request = centre.keys.request()
        done = run(*self.words(centre, request), "--out", centre.out, "--json")
        assert (done.code, done.row["state"], done.row["objects"]) == (0, "held", 3)
        assert done.row["study"] == centre.keys.study.hex()
        assert len(list(Path(done.row["folder"]).iterdir())) == 3
        listed = run("pulled", "--json").row
        assert (listed["state"], listed["release"]) == ("held", done.row["release"])

    def test_a_refusal_is_told_and_exits_with_1(self, centre: Centre, run: Command) -> None:
        request = centre.keys.world.request(publicKeyDigest=PRIVATE.public.digest)
        done = run(*self.words(centre, request), "--out", centre.out)
        assert (done.code, "refused: no approval" in done.err) == (1, True)

    def test_a_mismatch_exits_with_1_and_says_where_the_sealed_bytes_are(self, centre: Centre, run: Command) -> None:
        content = Path(centre.keys.world.node.config.content.removeprefix("local:")) / "objects"
        changed = next(path for path in content.rglob("*") if path.is_file())
        os.chmod(changed, 0o600)
        changed.write_bytes(b"changed")
        done = run(*self.words(centre, centre.keys.request()), "--out", centre.out, "--study", centre.keys.study.hex())
        assert (done.code, "1 object not as anchored" in done.err, str(centre.quarantine) in done.err) == (
            1,
            True,
            True,
        )

    def test_another_private_key_gets_nothing(self, centre: Centre, run: Command) -> None:
        OTHER.write(centre.folder / "other")
        words = [*self.words(centre, centre.keys.request())[:-1], centre.folder / "other" / "private.key"]
        done = run(*words, "--out", centre.out)
        assert (done.code, "public key is not the request's" in done.err) == (1, True)

    def test_the_hospital_away_exits_with_3(self, centre: Centre, run: Command) -> None:
        words = self.words(centre, centre.keys.request())
        words[3] = "https://localhost:1"
        assert run(*words, "--out", centre.out).code == 3

    def test_a_full_disk_exits_with_3(self, centre: Centre, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(Holdings, "keep", full)
        done = run(*self.words(centre, centre.keys.request()), "--out", centre.out)
        assert (done.code, "disk is full; try again later" in done.err) == (3, True)

    @pytest.mark.parametrize("url", ["http://localhost:1", "https://", "https://a:b@localhost", "https://localhost/x"])
    def test_a_wrong_address_is_told(self, centre: Centre, run: Command, url: str) -> None:
        words = self.words(centre, centre.keys.request())
        words[3] = url
        done = run(*words, "--out", centre.out)
        assert (done.code, "expected https://HOST:PORT" in done.err) == (2, True)

    def test_an_identity_of_another_organisation_is_refused(self, centre: Centre, run: Command) -> None:
        path = centre.configure()
        path.write_text(path.read_text().replace("organisations/research", "organisations/custodian"))
        done = run("pulled")
        assert (done.code, "expected one of ResearchMSP, it is of CustodianMSP" in done.err) == (2, True)

    @pytest.mark.parametrize(("fault", "code"), [("withdrawn", 1), ("missing", 3)])
    def test_one_study_that_is_not_to_be_had_keeps_no_other_waiting(
        self, centre: Centre, run: Command, fault: str, code: int
    ) -> None:
        world, index = centre.keys.world, centre.keys.world.node.index
        uids = {world.node.keyring.ensure_study(uid).token: uid for uid in (world.study_uid, world.add_study(7))}
        first, second = sorted(uids)
        request = centre.keys.request(studies=[first, second])
        if fault == "withdrawn":
            world.ledger("owner").submit("Withdraw", {"study": first, "reason": "113039"}, b"n" * 16)
        else:
            hospitals, own = Path(world.node.config.content.removeprefix("local:")), centre.folder / "own"
            shutil.copytree(hospitals, own)
            next(own.rglob(str(index.select(studies=[uids[first]])[0].object))).unlink()
            party = centre.configure()
            party.write_text(party.read_text().replace(world.node.config.content, f"local:{own}"))
        done = run(*self.words(centre, request), "--out", centre.out, "--json")
        assert (done.code, first.hex() in done.err) == (code, True)
        assert [(row["study"], row["state"]) for row in done.rows] == [(second.hex(), "held")]

    def test_erased_studies_are_forgotten(self, centre: Centre, run: Command) -> None:
        centre.pull(centre.keys.request())
        erase(centre)
        done = run("pulled", "--forget-erased", "--json")
        assert done.row == {"study": centre.keys.study.hex(), "state": "forgotten"}
        assert run("pulled", "--json").rows == []

    def test_nothing_to_give_is_told(self, centre: Centre, run: Command) -> None:
        request = centre.keys.request()
        centre.keys.world.ledger("owner").submit("RequestErase", {"study": centre.keys.study})
        done = run(*self.words(centre, request), "--out", centre.out)
        assert (done.code, "gives no study of this request now" in done.err) == (0, True)
        done = run(*self.words(centre, request), "--out", centre.out, "--study", centre.keys.study.hex())
        assert (done.code, "refused: withdrawn" in done.err) == (1, True)

    @pytest.mark.parametrize("words", [["pulled", "--forget-erased"], ["pull", "00" * 32]])
    def test_a_data_dir_that_is_not_there_is_not_made_anew(
        self, centre: Centre, run: Command, words: list[str]
    ) -> None:
        path = centre.configure()
        path.write_text(path.read_text().replace(f"data_dir: {centre.folder}", "data_dir: nowhere"))
        if words[0] == "pull":
            words = [*words, "--hospital", "https://localhost:1", "--key", str(centre.folder / "keys/private.key")]
            words += ["--out", str(centre.out)]
        done = run(*words)
        assert (done.code, "data_dir: expected a folder at" in done.err) == (2, True)

    def test_no_private_key_is_in_words_logs_or_errors(self, centre: Centre, run: Command) -> None:
        text = (centre.folder / "keys/private.key").read_text().split()[1]
        done = run("--verbose", *self.words(centre, centre.keys.request()), "--out", centre.out)
        assert text not in done.out + done.err
        assert (b"p" * 32).hex() not in done.out + done.err


def other_manifest(centre: Centre) -> str:
    """The CID of a manifest of another study."""
    world = centre.keys.world
    study = world.node.keyring.ensure_study(world.add_study(77)).token
    return str(world.ledger("owner").query("AnchorsOfStudy", {"study": study})[0]["manifestCid"])
