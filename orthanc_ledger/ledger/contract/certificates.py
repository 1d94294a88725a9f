"""Certificates an organisation has taken back: nothing signed with them is accepted from then on."""

from orthanc_ledger.ledger.contract.call import Caller, Effect, State, Transaction


def revoke_certificate(tx: Transaction) -> Effect:
    key = revocation_key(tx.caller.organisation, tx.args["serial"])
    if tx.state.get(key) is not None:
        return Effect(None, repeats=key)
    return Effect(None, {key: tx.stamp})


def is_revoked(state: State, caller: Caller) -> bool:
    return state.get(revocation_key(caller.organisation, caller.serial)) is not None


def revocation_key(organisation: str, serial: str) -> str:
    """Under which the state keeps that a certificate was taken back."""
    return f"revokedCertificate/{organisation}/{serial}"
