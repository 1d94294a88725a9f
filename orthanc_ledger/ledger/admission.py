"""What may become an entry of a log: signed for it, in time, by a member, and allowed by the contract."""

from orthanc_ledger.errors import ConfigError, ContractError, IntegrityError
from orthanc_ledger.ledger.contract import apply
from orthanc_ledger.ledger.contract.call import Applied, Call, State
from orthanc_ledger.ledger.log import LogFile
from orthanc_ledger.ledger.members import Members
from orthanc_ledger.ledger.transaction import Genesis, SignedTransaction

SIGNED_AHEAD_S = 300
SIGNED_BEFORE_S = 7 * 86_400


def judge(
    genesis: Genesis, members: Members, state: State, transaction: SignedTransaction, position: int, time: int
) -> Applied:
    """What a transaction does as the entry at `position` and `time`. Raises ContractError when it must not be one."""
    if transaction.log != genesis.log:
        raise ContractError("INVALID", "log", "signed for another ledger")
    if not time - SIGNED_BEFORE_S <= transaction.time <= time + SIGNED_AHEAD_S:
        raise ContractError("SKEW", "time", f"signed at {transaction.time}, the entry's time is {time}: sign it anew")
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
    return apply(state, call)


def read_genesis(log: LogFile) -> tuple[Genesis, Members]:
    """A log's genesis and its organisations. Raises IntegrityError when there is none that can be read."""
    row = log.entry(0)
    if row is None:
        raise IntegrityError("entry 0, the genesis, is missing")
    genesis = Genesis.decode(row.entry)
    try:
        return genesis, Members(genesis.organisations)
    except ConfigError as error:
        raise IntegrityError(f"entry 0, the genesis: {error}") from error
