"""What must be true of a node whatever was done to it, read from its files, its ports and its commands."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

from conftest import wait_until
from live_node import LiveNode, encoded
from plain_scu import SUCCESS
from torture_load import Book, Slice, retrieve

from orthanc_ledger import tokens
from orthanc_ledger.assemble import Node
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.spool import CONFLICTS, INBOX, QUARANTINE, TEMPORARY

_OURS = {"objects", "spool"}  # in the data directory, besides databases and locks, which are empty
_SAMPLE = 200  # sealed files that are searched for what is in the clear


def claim_of(node: Node, sent: Slice) -> str:
    return tokens.claim_name(node.keyring.k_lookup, sent.sop_uid)


def not_in_custody(node: Node, acknowledged: Iterable[Slice]) -> list[Slice]:
    """What was acknowledged and is neither anchored nor waits. Asks in the direction in which a unit moves."""
    return [sent for sent in acknowledged if not _is_in_custody(node, sent)]


def _is_in_custody(node: Node, sent: Slice) -> bool:
    claim = claim_of(node, sent)
    if sent.form == "changed":
        return any(name.startswith(f"{claim}.") for name in node.spool.names(CONFLICTS))
    places = (
        lambda: node.spool.holds(claim),
        lambda: node.index.claimed(claim) is not None,
        lambda: any(name.startswith(f"{claim}.") for name in node.spool.names(QUARANTINE)),
        lambda: node.index.claimed(claim) is not None,
    )
    return any(place() for place in places)


def wait_drained(node: Node, timeout_s: float) -> None:
    """Wait until nothing waits but for a person. Asks for little while there is much."""
    waits = (
        node.index.unanchored,
        node.outbox.posted,
        node.forwards.waiting,
        lambda: "spooled" in node.index.counts(),
        lambda: node.spool.names(INBOX),
    )

    def drained() -> bool:
        return not any(wait() for wait in waits)

    wait_until(drained, timeout_s, "everything is anchored and forwarded")


def try_again(live: LiveNode, node: Node, whole: Iterable[Slice]) -> int:
    """As a person would: a slice that is whole is in quarantine when two workers were killed while they had it in hand,
    with an alarm; how many there were.
    """
    names = {name.partition(".")[0]: name for name in node.spool.names(QUARANTINE)}
    accused = {claim: names[claim] for sent in whole if (claim := claim_of(node, sent)) in names}
    told = {
        alarm.claim for alarm in node.outbox.alarms() if alarm.kind == "quarantine" and "process died" in alarm.text
    }
    assert accused.keys() <= told, f"in quarantine for another reason: {accused.keys() - told}"
    for name in accused.values():
        live.command("quarantine", "retry", name)
    return len(accused)


def anchored_tokens(node: Node) -> Counter[tuple[bytes, bytes]]:
    """How often the ledger's anchors, by their manifests, name each instance: (study token, instance token)."""
    found: Counter[tuple[bytes, bytes]] = Counter()
    for anchor in all_rows(node.ledger_as(), "Anchors", {}):
        found.update((anchor["study"], record.instance) for record in node.manifests.anchored(anchor).records)
    return found


def check_anchored_once(node: Node, sent: Collection[Slice], acknowledged: Collection[Slice]) -> None:
    """Each acknowledged slice stands on the ledger once, and nothing that nobody sent does."""
    found, names = anchored_tokens(node), {}
    for each in sent:
        study = node.keyring.study(each.study_uid)
        if study is not None:  # else it never arrived
            names[study.token, tokens.instance_token(study.k_study, each.sop_uid)] = each
    twice = [names.get(name, name) for name, count in found.items() if count > 1]
    foreign = found.keys() - names.keys()
    missing = set(acknowledged) - {names[name] for name in found if name in names}
    assert not twice, f"anchored more than once: {twice[:3]}"
    assert not foreign, f"{len(foreign)} instances are anchored that nobody sent"
    assert not missing, f"{len(missing)} were acknowledged and are not anchored: {list(missing)[:3]}"


def check_waits_for_a_person(node: Node, book: Book) -> None:
    """What was cut off is in quarantine, other content in the conflict queue, each with its alarm; no other alarm."""
    alarms = {(alarm.kind, alarm.claim) for alarm in node.outbox.alarms()}
    expected = set()
    for form, kind, queue in (("broken", "quarantine", QUARANTINE), ("changed", "conflict", CONFLICTS)):
        claims = {claim_of(node, sent) for sent in book.acknowledged if sent.form == form}
        missing = claims - {name.partition(".")[0] for name in node.spool.names(queue)}
        assert not missing, f"{len(missing)} slices were acknowledged and are not in {queue}"
        expected |= {(kind, claim) for claim in claims}
    unacknowledged = {claim_of(node, sent) for sent in book.sent.values() if sent.form == "broken"}
    others = {(kind, claim) for kind, claim in alarms - expected if kind != "conflict" and claim not in unacknowledged}
    assert expected <= alarms, f"{len(expected - alarms)} alarms are missing"
    assert not others, f"alarms nobody gave a reason for: {others}"


def check_retrievable(port: int, book: Book, held: Iterable[Slice]) -> None:
    """A clinical C-GET gives every slice of these studies that was acknowledged, bit by bit."""
    studies = defaultdict(set)
    for sent in held:
        studies[sent.study_uid].add(sent.sop_uid)
    for study_uid, sop_uids in studies.items():
        status, received = retrieve(port, "VIEWER", study_uid)
        book.check_received(received)
        assert status == SUCCESS, f"C-GET of {study_uid}: 0x{status:04X}"
        assert sop_uids <= received.keys(), f"{study_uid}: {len(sop_uids - received.keys())} slices are not given"


def check_forwarded(folder: Path, book: Book, held: Iterable[Slice]) -> None:
    """A PACS has in its folder, or had at an earlier check, every slice that was acknowledged; its files go."""
    came = {path.name.removeprefix("MR."): encoded(path) for path in folder.iterdir()}
    book.check_received(came)
    missing = {sent.sop_uid for sent in held} - came.keys()
    assert not missing, f"{len(missing)} slices were not forwarded"
    for path in folder.iterdir():
        path.unlink()


def check_nothing_left(node: Node) -> None:
    """No unit in the clear, no temporary file, no file of unknown purpose; nothing sealed shows what is in it."""
    data, spool = node.config.data_dir, node.spool.folder
    staging = data / "objects" / "staging"
    left = [path for folder in (spool / INBOX, spool / TEMPORARY, staging) for path in folder.iterdir()]
    locks = {path.name for path in data.glob("*.lock") if not path.stat().st_size}
    unknown = {path.name for path in data.iterdir() if ".db" not in path.name} - _OURS - locks
    unknown |= {path.name for path in spool.iterdir()} - {INBOX, CONFLICTS, QUARANTINE, TEMPORARY}
    assert not left, f"left behind: {left[:5]}"
    assert not unknown, f"files nobody knows: {unknown}"
    sealed = sorted((data / "objects" / "objects").glob("*/*"))
    marks = (b"1.2.826.0.1.3680043.10.", b"MAGNETOM", b"GE MEDICAL")
    clear = [path for path in sealed[:: max(1, len(sealed) // _SAMPLE)] if any(map(path.read_bytes().count, marks))]
    assert not clear, f"in the clear: {clear[:5]}"


def check_ledger(live: LiveNode, sink: Path) -> None:
    """fsck calls the ledger clean, and the checkpoints that came to the sink belong to it."""
    assert any(sink.iterdir()), "no checkpoint came to the sink"
    live.command("fsck")
