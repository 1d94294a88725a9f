"""Tampering: an instance without a healthy copy is flagged by either party and resolved by both; repairs are noted."""

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.anchors import check_anchored
from orthanc_ledger.ledger.contract.call import Effect, Records, Transaction, Value, differing
from orthanc_ledger.ledger.contract.custody import current_manifest
from orthanc_ledger.ledger.contract.standing import check_not_erased, raised, repeated_word, word_of_both


def flag_tampered(tx: Transaction) -> Effect:
    args = tx.args
    check_anchored(tx, "manifestCid")
    study, instance, number = args["study"], args["instance"], args["n"]
    key = _flag(study, instance, number)
    first = tx.state.get(key)
    if first is not None:
        if differing(first, args, args):
            raise ContractError("CONFLICT", "n", "this flag exists with other content")
        return Effect({"version": first["version"]}, repeats=key)
    if number and tx.state.get(_flag(study, instance, number - 1)) is None:
        raise ContractError("INVALID", "n", f"flags of an instance count from 0, and there is none {number - 1}")
    check_not_erased(tx.state, study)
    version, change = raised(tx.state, study)
    record = {**args, "version": version, **tx.stamp}
    return Effect({"version": version}, {key: record, **change}, studies=(study,))


def resolve(tx: Transaction) -> Effect:
    args = tx.args
    study, manifest_cid = args["study"], args["manifestCid"]
    place = f"{study.hex()}/{args['instance'].hex()}/{args['n']:06d}"
    flag = tx.record(f"flag/{place}", "n")
    words = f"resolution/{place}/{manifest_cid}"
    if repeat := repeated_word(tx, words):
        return repeat
    check_not_erased(tx.state, study)
    if tx.state.get(f"resolved/{place}") is not None:
        raise ContractError("WRONG_STATE", "resolved", "both agreed on another manifest")
    check_anchored(tx, "manifestCid")
    if manifest_cid not in (flag["manifestCid"], current_manifest(tx.state, study, args["instance"])):
        raise ContractError("INVALID", "manifestCid", "neither the flagged anchor nor the instance's current record")

    def resolved(version: int) -> dict[str, Value]:
        return {f"resolved/{place}": {"manifestCid": manifest_cid, "version": version, "time": tx.call.time}}

    return word_of_both(tx, words, study, ("flagged", "resolved"), resolved)


def report_repair(tx: Transaction) -> Effect:
    study: bytes = tx.args["study"]
    key = f"repair/{study.hex()}/{tx.id.hex()}"
    if tx.state.get(key) is not None:
        return Effect({"id": tx.id}, repeats=key)
    if tx.args["node"]["organisation"] != tx.caller.organisation:
        raise ContractError("NOT_PERMITTED", "node", "not a node of the reporting organisation")
    return Effect({"id": tx.id}, {key: tx.noted}, studies=(study,))


def flags(records: Records, study: bytes) -> tuple[list[Value], list[Value]]:
    """The study's standing flags, and the resolved ones with the manifest that both agreed on."""
    standing: list[Value] = []
    resolved: list[Value] = []
    for key, flag in records.scan(f"flag/{study.hex()}/"):
        agreed = records.get(key.replace("flag/", "resolved/", 1))
        manifest_cid = (agreed or flag)["manifestCid"]
        row = {"instance": flag["instance"], "manifestCid": manifest_cid, "n": flag["n"]}
        (standing if agreed is None else resolved).append(row)
    return standing, resolved


def _flag(study: bytes, instance: bytes, number: int) -> str:
    return f"flag/{study.hex()}/{instance.hex()}/{number:06d}"
