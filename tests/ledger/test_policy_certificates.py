"""An organisation's CA is that of the policy in force, else the genesis': who may sign, and from which entry on."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orthanc_ledger.errors import ConfigError, ContractError
from orthanc_ledger.ledger.embedded import EmbeddedLedger, create_ledger
from orthanc_ledger.ledger.fsck import Kind, authorities, check
from orthanc_ledger.ledger.identity import Identity, ca_certificate, create_organisation, issue, load_identity
from orthanc_ledger.ledger.log import LogFile, Row
from orthanc_ledger.ledger.transaction import sign
from tests.ledger.channel import CUSTODIAN, LAB, OWNER, ROLES, START, People, policy

NEW = "NewLabMSP"
NODE = {"aeTitle": "NEW1", "role": "research", "certDigests": []}
NONCE = b"n" * 16


@pytest.fixture
def ledger(tmp_path: Path, people: People) -> Iterator[Callable[..., EmbeddedLedger]]:
    """The ledger as one identity (the owner's) sees it, under the default policy."""
    path = tmp_path / "ledger.db"
    create_ledger(path, people.ca_certificates, policy(), lambda: START)
    opened: list[EmbeddedLedger] = []

    def open_as(identity: Identity = people.identities[OWNER]) -> EmbeddedLedger:
        opened.append(EmbeddedLedger(path, identity, lambda: START))
        return opened[-1]

    open_as().submit("InitPolicy", {"policy": policy()})
    yield open_as
    for one in opened:
        one.close()


@pytest.fixture
def organisation(tmp_path: Path) -> Callable[..., tuple[Identity, bytes]]:
    """Make an organisation: an identity of it, and its CA certificate."""

    def make(msp_id: str = NEW, folder: str = "new") -> tuple[Identity, bytes]:
        create_organisation(tmp_path / folder, msp_id, lambda: START)
        person = issue(tmp_path / folder, "person-1", "person", lambda: START)
        return load_identity(person), ca_certificate(tmp_path / folder)

    return make


def joined(**certificates: bytes) -> dict[str, Any]:
    """The policy with another lab, and CA certificates."""
    return policy(organisations={**ROLES, NEW: "research"}, certificates=certificates)


def propose(open_as: Callable[..., EmbeddedLedger], proposed: dict[str, Any]) -> bytes:
    return bytes(open_as().submit("ProposePolicy", {"policy": proposed}).result["id"])


def confirm(open_as: Callable[..., EmbeddedLedger], people: People, proposal: bytes) -> int:
    return open_as(people.identities[CUSTODIAN]).submit("ConfirmPolicy", {"id": proposal}).position


def test_a_joined_organisation_signs_once_the_policy_is_confirmed(
    ledger: Callable[..., EmbeddedLedger],
    organisation: Callable[..., tuple[Identity, bytes]],
    people: People,
    tmp_path: Path,
) -> None:
    identity, ca = organisation()
    newcomer = ledger(identity)
    for step in ("neither proposed", "nor confirmed"):
        with pytest.raises(ContractError, match="NOT_PERMITTED certificate"):
            newcomer.submit("RegisterNode", NODE)
        if step == "neither proposed":
            proposal = propose(ledger, joined(**{NEW: ca}))
    confirm(ledger, people, proposal)
    assert newcomer.submit("RegisterNode", NODE).result["node"]["organisation"] == NEW
    ledger(people.identities[LAB]).submit("RegisterNode", {**NODE, "aeTitle": "LAB1"})
    assert check(tmp_path / "ledger.db").findings == ()
    assert authorities(tmp_path / "ledger.db")[1] == [people.ca_certificates, {**people.ca_certificates, NEW: ca}]


def test_fsck_goes_by_the_policy_at_each_entry(
    ledger: Callable[..., EmbeddedLedger],
    organisation: Callable[..., tuple[Identity, bytes]],
    people: People,
    tmp_path: Path,
) -> None:
    """An entry of a newcomer put before the confirmation of the policy that names its CA."""
    identity, ca = organisation()
    proposal = propose(ledger, joined(**{NEW: ca}))
    early = sign(identity, ledger().log_id, "RegisterNode", NODE, NONCE, START)
    with closing(LogFile(tmp_path / "ledger.db")) as log, log.transaction("IMMEDIATE"):
        log.append(Row(3, START, early.tx_id, early.entry(START)), {})
    assert confirm(ledger, people, proposal) == 4
    (finding,) = check(tmp_path / "ledger.db").findings
    assert (finding.position, finding.kind) == (3, Kind.UNKNOWN_SIGNER)


def test_a_new_ca_takes_the_place_of_the_genesis(
    ledger: Callable[..., EmbeddedLedger],
    organisation: Callable[..., tuple[Identity, bytes]],
    people: People,
    tmp_path: Path,
) -> None:
    identity, ca = organisation(LAB)
    confirm(ledger, people, propose(ledger, policy(certificates={LAB: ca})))
    ledger(identity).submit("RegisterNode", NODE)
    with pytest.raises(ContractError, match="NOT_PERMITTED certificate"):
        ledger(people.identities[LAB]).submit("RegisterNode", {**NODE, "aeTitle": "OLD1"})
    confirm(ledger, people, propose(ledger, policy(max_days=30)))
    ledger(people.identities[LAB]).submit("RegisterNode", {**NODE, "aeTitle": "OLD1"})
    assert check(tmp_path / "ledger.db").findings == ()


def test_a_policy_with_certificates_that_are_no_cas_is_refused(
    ledger: Callable[..., EmbeddedLedger], organisation: Callable[..., tuple[Identity, bytes]], people: People
) -> None:
    identity, _ = organisation()
    for no_ca in (identity.certificate, b"no certificate", people.ca_certificates[LAB]):
        before = ledger().size
        with pytest.raises(ContractError, match="INVALID certificates"):
            propose(ledger, joined(**{NEW: no_ca}))
        assert ledger().size == before


def test_a_first_policy_with_certificates(
    organisation: Callable[..., tuple[Identity, bytes]], people: People, tmp_path: Path
) -> None:
    identity, ca = organisation()
    path, brought = tmp_path / "ledger.db", joined(**{NEW: ca})
    for wrong in (joined(**{NEW: identity.certificate}), joined(**{NEW: people.ca_certificates[LAB]}), joined()):
        with pytest.raises(ConfigError):
            create_ledger(path, people.ca_certificates, wrong)
    create_ledger(path, people.ca_certificates, brought, lambda: START)
    with closing(EmbeddedLedger(path, identity, lambda: START)) as newcomer:
        with closing(EmbeddedLedger(path, people.identities[OWNER], lambda: START)) as owner:
            owner.submit("InitPolicy", {"policy": brought})
        newcomer.submit("RegisterNode", NODE)
    assert check(path).findings == ()


def test_a_first_policy_with_certificates_that_are_no_cas_is_refused_though_the_genesis_names_it(
    organisation: Callable[..., tuple[Identity, bytes]],
    people: People,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a ledger that somebody made without asking `create_ledger`'s checks."""
    identity, _ = organisation()
    path, brought = tmp_path / "ledger.db", joined(**{NEW: identity.certificate})
    with monkeypatch.context() as patched:
        patched.setattr("orthanc_ledger.ledger.embedded.Membership.under", lambda self, policy: None)
        create_ledger(path, people.ca_certificates, brought, lambda: START)
    with (
        closing(EmbeddedLedger(path, people.identities[OWNER], lambda: START)) as owner,
        pytest.raises(ContractError, match="INVALID certificates"),
    ):
        owner.submit("InitPolicy", {"policy": brought})
