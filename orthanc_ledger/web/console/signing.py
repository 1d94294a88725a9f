"""Who signs what people decide: the person's own key, opened by a passphrase for one signature, or the house's own."""

from contextlib import closing
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding

from orthanc_ledger.clock import system_clock
from orthanc_ledger.code_labels import ASSURANCES
from orthanc_ledger.errors import ConfigError
from orthanc_ledger.ledger import Committed, open_ledger
from orthanc_ledger.ledger.bearer import bearer_of
from orthanc_ledger.ledger.identity import certificate_of, load_identity
from orthanc_ledger.web.console.accounts import Account
from orthanc_ledger.web.console.house import House
from orthanc_ledger.web.console.sessions import Offer


class WrongPassphrase(ConfigError):
    """It does not open the person's key."""


@dataclass(frozen=True)
class Signer:
    """Whose certificate a signature will be made with. ``assurance``: what the record will say, `person-key` or
    `node-asserted`.
    """

    organisation: str
    role: str
    assurance: str
    serial: str


def signer_of(house: House, account: Account) -> Signer:
    """Who signs for an account.

    Raises ConfigError when it would be another organisation, or another kind of key than the account says;
    ContractError when the ledger does not believe the certificate; LedgerAway.
    """
    certificate = certificate_of(account.identity or house.identity).public_bytes(Encoding.DER)
    bearer = bearer_of(house.ledger, certificate, system_clock())
    caller = bearer.caller
    if caller.organisation != house.organisation:
        raise ConfigError(
            f"{account.name} would sign for {caller.organisation}: this console signs for {house.organisation} only"
        )
    expected = "node" if account.identity is None else "person"
    if caller.assurance != expected:
        raise ConfigError(
            f"{account.identity or house.identity}: expected a {expected}'s identity, it is a {caller.assurance}'s"
        )
    return Signer(caller.organisation, bearer.role, ASSURANCES[caller.assurance], caller.serial)


def sign(house: House, account: Account, passphrase: str, offer: Offer) -> tuple[Signer, Committed]:
    """Sign and submit what was offered, exactly so; who signed, and where it came to lie.

    Raises WrongPassphrase, and as `signer_of`; ContractError when the contract refuses; LedgerAway when no answer could
    be had: it may count all the same.
    """
    signer = signer_of(house, account)
    if account.identity is None:
        identity = load_identity(house.identity)
    else:
        try:
            identity = load_identity(account.identity, passphrase.encode("utf-8", "replace"))
        except ConfigError as error:
            raise WrongPassphrase(str(error)) from error
    with closing(open_ledger(house.ledger_url, identity)) as ledger:
        return signer, ledger.submit(offer.function, offer.args)
