"""What may become an entry of a log: signed for it, in time, by a member, and allowed by the contract."""

from collections.abc import Mapping

from orthanc_ledger.errors import ConfigError, ContractError, IntegrityError
from orthanc_ledger.ledger.contract import apply
from orthanc_ledger.ledger.contract.call import Applied, Call, State, Value
from orthanc_ledger.ledger.contract.policy import KEY as POLICY
from orthanc_ledger.ledger.log import LogFile
from orthanc_ledger.ledger.members import Membership
from orthanc_ledger.ledger.transaction import Genesis, SignedTransaction

SIGNED_AHEAD_S = 300
SIGNED_BEFORE_S = 7 * 86_400


def judge(
    genesis: Genesis, membership: Membership, state: State, transaction: SignedTransaction, position: int, time: int
) -> Applied:
    """What a transaction does as the entry at `position` and `time`. Raises ContractError when it must not be one."""
    if transaction.log != genesis.log:
        raise ContractError("INVALID", "log", "signed for another ledger")
    if not time - SIGNED_BEFORE_S <= transaction.time <= time + SIGNED_AHEAD_S:
        raise ContractError("SKEW", "time", f"signed at {transaction.time}, the entry's time is {time}: sign it anew")
    members = membership.under(state.get(POLICY))
    caller = members.verify(transaction.certificate, transaction.signature, transaction.payload, time)
    call = Call(
        transaction.function,
        transaction.args,
        transaction.nonce,
        caller,
        time=time,
        host_time=time,  # here the entry's time is the host's word already
        sequence=position,
        policy_sha256=genesis.policy_sha256,
    )
    applied = apply(state, call)
    if applied.repeats is None and "policy" in transaction.args:
        _check_certificates(genesis, transaction.args["policy"])
    return applied


def _check_certificates(genesis: Genesis, policy: Mapping[str, Value]) -> None:
    """The CAs that a policy brings. The contract checks their form only: other hosts do not go by them."""
    try:
        Membership(genesis.organisations).under(policy)
    except ConfigError as error:
        raise ContractError("INVALID", "certificates", str(error)) from error


def read_genesis(log: LogFile) -> tuple[Genesis, Membership]:
    """A log's genesis and its organisations. Raises IntegrityError when there is none that can be read."""
    row = log.entry(0)
    if row is None:
        raise IntegrityError("entry 0, the genesis, is missing")
    genesis = Genesis.decode(row.entry)
    try:
        return genesis, Membership(genesis.organisations)
    except ConfigError as error:
        raise IntegrityError(f"entry 0, the genesis: {error}") from error
