"""Whether a key file may be used, in its recipient's own view of the ledger (docs/keyfile.md, "What is checked")."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orthanc_ledger import merkle
from orthanc_ledger.errors import ContractError, IntegrityError, LedgerAway
from orthanc_ledger.key_file import KeyFile, ReleasedKeys
from orthanc_ledger.ledger import Ledger, OpenLedger, first_record
from orthanc_ledger.ledger.bearer import bearer_of
from orthanc_ledger.recipient_key import PrivateKey


class Outdated(IntegrityError):
    """The approval has ended, or the study's standing is not the release's any more: new keys must be asked for."""


class Unseen(LedgerAway):
    """The release is not on the ledger as it is seen here; it may be soon."""


@dataclass(frozen=True)
class Grant:
    """What was released: the ledger's record of the release, the study's standing (StandingOf), and the keys."""

    release: Mapping[str, Any]
    standing: Mapping[str, Any]
    keys: ReleasedKeys


def check(
    file: KeyFile, private: PrivateKey, request: Mapping[str, Any], study: bytes, ledger: OpenLedger, time: int
) -> Grant:
    """Points 1 to 4 of the page; the study's manifests are the caller's. ``request``: as GetRequest has it.

    Raises IntegrityError when any does not hold, Outdated for the last one; Unseen, LedgerAway.
    """
    if not file.recipient == private.public.digest == request.get("publicKeyDigest"):
        raise IntegrityError("key file: for another recipient than this private key and this request")
    release = _release(ledger, file.release)
    _expect("request", request["id"], release["request"])
    _expect("study", study, release["study"])
    _expect("node", request["node"], release["node"])
    _check_signer(file, release["by"], ledger, time)
    keys = file.open(private)
    _expect("request", request["id"], keys.request)
    _expect("study", study, keys.study)
    tokens = [row.instance for row in keys.instances]
    _expect("instancesRoot", release["instancesRoot"], merkle.root(tokens))
    _expect("count", release["count"], len(tokens))
    _expect("anchors", sorted(release["anchors"]), sorted({row.manifest for row in keys.instances}))
    if request["state"] != "approved":
        raise Outdated("the approval has ended")
    standing = ledger.query("StandingOf", {"study": study})
    if standing["version"] != release["standingVersion"]:
        raise Outdated("the study was withdrawn, flagged or corrected since this release: ask again")
    return Grant(release, standing, keys)


def _release(ledger: Ledger, release: bytes) -> Mapping[str, Any]:
    record: Mapping[str, Any] | None = first_record(ledger, f"release/{release.hex()}")
    if record is None:
        raise Unseen(f"release {release.hex()} is not on the ledger as it is seen here")
    return record


def _check_signer(file: KeyFile, by: Mapping[str, Any], ledger: OpenLedger, time: int) -> None:
    try:
        signer = bearer_of(ledger, file.certificate, time)
        signer.member.verify(file.signature, file.signed)
    except ContractError as error:
        raise IntegrityError(f"key file: its signature does not count: {error}") from error
    _expect("signer's role", "owner", signer.role)
    _expect("signer", (by["organisation"], by["serial"]), (signer.caller.organisation, signer.caller.serial))


def _expect(what: str, expected: object, got: object) -> None:
    if expected != got:
        raise IntegrityError(f"key file: {what}: not the release's on the ledger")
