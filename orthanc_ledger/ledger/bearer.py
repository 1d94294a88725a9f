"""Who bears a certificate, as far as the ledger believes it now: for what is signed or shown outside transactions."""

from dataclasses import dataclass

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger import OpenLedger, first_record
from orthanc_ledger.ledger.contract.call import Caller
from orthanc_ledger.ledger.contract.certificates import revocation_key
from orthanc_ledger.ledger.members import Member, Members


@dataclass(frozen=True)
class Bearer:
    """A member, and its organisation's role in the policy: owner, custodian or research."""

    member: Member
    role: str

    @property
    def caller(self) -> Caller:
        """As a transaction's caller."""
        return self.member.caller


def bearer_of(ledger: OpenLedger, certificate: bytes, time: int) -> Bearer:
    """Whose certificate (DER) it is.

    Raises ContractError NOT_PERMITTED `certificate`: no CA of the ledger issued it, it is not valid at ``time`` (UTC
    seconds), or was revoked; NOT_PERMITTED `organisation`: not in the policy. LedgerAway.
    """
    member = Members(ledger.authorities()).identify(certificate)
    caller = member.caller
    if not member.valid_at(time):
        raise ContractError("NOT_PERMITTED", "certificate", "not valid now: have a new one issued")
    if first_record(ledger, revocation_key(caller.organisation, caller.serial)) is not None:
        raise ContractError("NOT_PERMITTED", "certificate", "revoked: have a new one issued")
    role = ledger.query("GetPolicy", {})["organisations"].get(caller.organisation)
    if role is None:
        raise ContractError("NOT_PERMITTED", "organisation", f"{caller.organisation} is not on this ledger")
    return Bearer(member, role)
