"""receipt, verify-receipt: proof that an object was anchored, for somebody who has no node."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from pydicom.datadict import keyword_for_tag

from orthanc_ledger.assemble import Node
from orthanc_ledger.clock import system_clock
from orthanc_ledger.commands.terminal import add_json, open_node, show, tell
from orthanc_ledger.durable import write_new
from orthanc_ledger.errors import ConfigError, IntegrityError, Unreadable
from orthanc_ledger.instance import open_instance
from orthanc_ledger.leaves import ITEM_COUNT, show_path
from orthanc_ledger.ledger.checkpoint import NOTHING_PINNED, Note, Pins, read_trusted
from orthanc_ledger.ledger.identity import load_identity, parse_certificate, read_certificate
from orthanc_ledger.receipt import Element, Leaves, Receipt, parse_path
from orthanc_ledger.receipt_check import Proven, check, check_file
from orthanc_ledger.receipt_evidence import Anchored, Believed, Peers
from orthanc_ledger.receipt_issue import Receipts
from orthanc_ledger.spool import TEMPORARY
from orthanc_ledger.values import is_text
from orthanc_ledger.words import moment

EXIT_NOT_PROVEN = 1
_SHOWN_BYTES = 64


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    issue = subparsers.add_parser("receipt", help="write the proof that an object was anchored, for who has its file")
    issue.add_argument("sop_instance_uid", metavar="SOP_INSTANCE_UID")
    issue.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to; not overwritten")
    issue.add_argument(
        "--disclose",
        nargs="+",
        default=[],
        metavar="TAG",
        help="for who may see only these elements: 00080060, 0010,0010, 00081140[0].00081150; a sequence's own tag "
        "discloses its number of items",
    )
    add_json(issue)
    issue.set_defaults(run=_issue)

    verify = subparsers.add_parser(
        "verify-receipt",
        help="check a receipt, and the file it is for; needs no node",
        epilog="Exit codes: 0 proven; 1 not proven; 2 receipt, file or certificate cannot be read, or the "
        "options do not say whom to believe.",
    )
    verify.add_argument("receipt", type=Path, metavar="RECEIPT")
    verify.add_argument("file", type=Path, nargs="?", metavar="FILE.dcm", help="the object, unless elements are proven")
    believed = verify.add_mutually_exclusive_group(required=True)
    believed.add_argument(
        "--trust",
        type=Path,
        action="append",
        metavar="CA.pem",
        help="of an embedded ledger: CA certificate of the organisation whose anchors you believe, got from itself "
        "(again for one it had before); with ML-DSA keys behind it, one of them must have signed, too",
    )
    believed.add_argument(
        "--peers",
        action="append",
        metavar="MSPID=CA.pem",
        help="on Fabric: an organisation of which a peer must have signed, and its CA certificate, got from itself "
        "(again for each: owner and custodian)",
    )
    add_json(verify)
    verify.set_defaults(run=_verify)


def _issue(args: argparse.Namespace) -> int:
    paths = [parse_path(text) for text in args.disclose]
    issued = _receipts(open_node(args)).issue(args.sop_instance_uid, paths)
    proven = check(issued.receipt, issued.signers)  # nothing leaves that would not be believed
    try:
        # For the owner's eyes: it may hold salts, with which a value can be guessed.
        write_new(args.out, issued.receipt.encode())
    except OSError as error:
        raise ConfigError(f"--out {args.out}: cannot be written: {error.strerror}") from error
    row = {"file": args.out, "supersedes": issued.supersedes, **_anchor(proven)}
    which = ", which superseded an earlier one" if issued.supersedes else ""
    content = f"{len(paths)} elements" if paths else "the whole file"
    tell(
        args,
        row,
        f"{args.out}: proves {content}, by the anchor of {row['anchored']} ({_place(row)}, manifest "
        f"{row['manifest']}){which}; {_checked(row)}",
    )
    return 0


def _receipts(node: Node) -> Receipts:
    return Receipts(
        node.index,
        node.keyring,
        node.near,
        node.near_manifests,
        node.ledger_as(),
        load_identity(node.config.identity),
        node.spool.folder / TEMPORARY,
        system_clock,
    )


def _verify(args: argparse.Namespace) -> int:
    receipt = Receipt.decode(_read(args.receipt))
    believed, pins = _believed(args)
    whole = isinstance(receipt.content, Leaves)
    if whole == (args.file is None):
        raise ConfigError(
            f"{args.receipt}: this receipt is for a file: name the file behind it"
            if whole
            else f"{args.receipt}: this receipt is for single elements and says nothing of a file: leave the file out"
        )
    try:
        proven = check(receipt, believed, pins)
        subject = _check_file(args.file, receipt.content, proven) if isinstance(receipt.content, Leaves) else None
    except IntegrityError as error:
        tell(args, {"state": "not proven", "detail": str(error)}, f"NOT proven: {error}")
        return EXIT_NOT_PROVEN
    elements = () if isinstance(receipt.content, Leaves) else receipt.content.elements
    row = {
        "state": "proven",
        "sop_instance_uid": subject,
        "elements": [_element(element) for element in elements],
        **_anchor(proven),
    }
    if args.json:
        show([row], True, ())
    else:
        print("\n".join(_lines(row)))
    return 0


def _believed(args: argparse.Namespace) -> tuple[Believed, Pins]:
    """Whom the options name."""
    if args.trust:
        certificates, pins = read_trusted(args.trust)
        return list(certificates.values()), pins
    peers: dict[str, bytes] = {}
    for text in args.peers:
        msp_id, _, path = text.partition("=")
        if not msp_id or not path:
            raise ConfigError(f"--peers {text!a}: expected MSPID=CA.pem")
        if msp_id in peers:
            raise ConfigError(f"--peers {text!a}: {msp_id!a} is named twice: expected one CA of each organisation")
        peers[msp_id] = read_certificate(Path(path)).public_bytes(Encoding.DER)
    return peers, NOTHING_PINNED


def _check_file(path: Path, leaves: Leaves, proven: Proven) -> str:
    """Check the file; its SOP Instance UID, which is one of the leaves."""
    try:
        with path.open("rb") as file:
            instance = open_instance(file)
            check_file(leaves, proven.record, instance)
            return instance.sop_instance_uid
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read: {error.strerror}") from error


def _anchor(proven: Proven) -> dict[str, Any]:
    anchor, kept_by = proven.anchor, proven.anchor.kept_by
    return {
        "anchored": moment(anchor.time),
        **(_peers(anchor.position, kept_by) if isinstance(kept_by, Peers) else _log(anchor.position, kept_by)),
        "manifest": anchor.args["manifestCid"],
        "study": anchor.args["study"],
        "instance": proven.record.instance,
        "kind": anchor.args["kind"],
        "origin": proven.record.origin,
        "trust_roots": _subjects(anchor),
    }


def _log(position: int, note: Note) -> dict[str, Any]:
    """Where it stands in an embedded ledger."""
    return {
        "entry": position,
        "log": note.log_id,
        "checkpoint_size": note.checkpoint.size,
        "checkpoint_root": note.checkpoint.root,
        "checkpoint_signed": moment(note.time),
        "ml_dsa": note.ml_dsa,
    }


def _peers(sequence: int, peers: Peers) -> dict[str, Any]:
    """Where it stands on Fabric, and by whose word."""
    return {"sequence": sequence, "channel": peers.channel, "peers": peers.serials, "asked": moment(peers.time)}


def _subjects(anchor: Anchored) -> list[dict[str, str]]:
    certificates = map(parse_certificate, anchor.authorities)
    return [
        {"subject": certificate.subject.rfc4514_string(), "sha256": certificate.fingerprint(SHA256()).hex()}
        for certificate in certificates
    ]


def _element(element: Element) -> dict[str, Any]:
    tag = int.from_bytes(element.path[-4:], "big")
    name = f"{show_path(element.path)} {keyword_for_tag(tag)}".rstrip()
    return {"element": name, "value": _value(element, tag), "bytes": element.value}


def _value(element: Element, tag: int) -> str:
    """For people: text quoted, in ASCII, so that no value can write to the terminal what it likes."""
    if element.kind == ITEM_COUNT:
        return f"{int.from_bytes(element.value, 'big')} items"
    if is_text(tag):
        return ascii(element.value.decode("latin-1"))
    rest = f"… ({len(element.value)} bytes)" if len(element.value) > _SHOWN_BYTES else ""
    return f"hexadecimal {element.value[:_SHOWN_BYTES].hex()}{rest}"


def _lines(row: dict[str, Any]) -> Iterator[str]:
    roots = "; ".join(f"{root['subject']!a}, SHA-256 {root['sha256']}" for root in row["trust_roots"])
    yield row["state"]
    if row["sop_instance_uid"] is not None:
        yield f"what        pixels and metadata (fp/v1) of this file, SOP Instance UID {row['sop_instance_uid']!a}"
    else:
        yield "what        these elements of one object; of the rest of it, nothing"
        yield from (f"            {element['element']} = {element['value']}" for element in row["elements"])
    yield f"anchored    {row['anchored']} by the ledger's {'clock' if 'log' in row else 'word'}, {_place(row)}"
    yield f"as          instance {row['instance'].hex()} of study {row['study'].hex()}, {row['kind']}, {row['origin']}"
    yield f"manifest    {row['manifest']}"
    yield _keepers(row)
    yield f"trust root  {roots}"
    yield f"not said    {_not_said(row)} (docs/receipt.md)"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read: {error.strerror}") from error


def _place(row: dict[str, Any]) -> str:
    if "log" in row:
        return f"as entry {row['entry']} of log {row['log'].hex()}"
    return f"as {row['sequence']} on channel {row['channel']!a}"


def _checked(row: dict[str, Any]) -> str:
    if "log" in row:
        return f"checked up to a checkpoint of {row['checkpoint_size']} entries"
    return f"signed by peers of {' and '.join(sorted(row['peers']))}"


def _keepers(row: dict[str, Any]) -> str:
    if "log" in row:
        checkpoint = f"{row['checkpoint_size']} entries, root {row['checkpoint_root'].hex()}"
        return f"checkpoint  {checkpoint}, signed {row['checkpoint_signed']}{', by ML-DSA, too' * row['ml_dsa']}"
    peers = ", ".join(f"{msp_id!a} (certificate {serial})" for msp_id, serial in row["peers"].items())
    return f"peers       {peers}, asked {row['asked']}"


def _not_said(row: dict[str, Any]) -> str:
    if "log" in row:
        return "what happened after the checkpoint; whether the ledger was rolled back since"
    return "what happened after the peers were asked"
