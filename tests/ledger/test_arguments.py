"""Arguments: strict schemas, who may call what."""

from typing import Any

import pytest

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract import FUNCTIONS, QUERIES
from tests.ledger.channel import (
    CUSTODIAN,
    DIGEST,
    INSTANCE,
    LAB,
    LAB_NODE,
    OTHER_LAB,
    OWNER,
    ROLES,
    STUDY,
    Channel,
    cid,
    policy,
)

ID = b"\x01" * 32
DATASET_ID = b"\x02" * 16
PACS = {"organisation": OWNER, "aeTitle": "PACS"}
VALID: dict[str, dict[str, Any]] = {
    "InitPolicy": {"policy": policy()},
    "ProposePolicy": {"policy": policy(lease_s=30)},
    "ConfirmPolicy": {"id": ID},
    "Anchor": {"manifestCid": cid("m"), "study": STUDY, "root": DIGEST, "count": 1, "kind": "original"},
    "ConfirmStored": {"manifestCid": cid("m")},
    "ReportConflict": {"study": STUDY, "instance": INSTANCE, "presented": DIGEST},
    "Supersede": {
        "study": STUDY,
        "instance": INSTANCE,
        "oldManifest": cid("m"),
        "newManifest": cid("n"),
        "reason": "wrong-worklist",
    },
    "ConfirmSupersede": {"id": ID},
    "Withdraw": {"study": STUDY, "instances": [INSTANCE], "reason": "113001"},
    "Reinstate": {"id": ID},
    "FlagTampered": {
        "study": STUDY,
        "instance": INSTANCE,
        "n": 0,
        "manifestCid": cid("m"),
        "observed": DIGEST,
        "what": ["(0010,0010)", 3],
    },
    "Resolve": {"study": STUDY, "instance": INSTANCE, "n": 0, "manifestCid": cid("m")},
    "ReportRepair": {"study": STUDY, "instance": INSTANCE, "node": PACS},
    "RegisterNode": {"aeTitle": "LAB1", "role": "research", "certDigests": [DIGEST]},
    "ConfirmNode": {"node": LAB_NODE, "version": 1},
    "RevokeNode": {"node": LAB_NODE},
    "RegisterDataset": {
        "id": DATASET_ID,
        "version": 1,
        "root": DIGEST,
        "count": 1,
        "descriptorDigest": DIGEST,
        "duo": ["DUO:0000042"],
    },
    "WithdrawDataset": {"id": DATASET_ID, "version": 1},
    "RequestAccess": Channel.access(),
    "Approve": {"id": ID, "until": 1, "release": "identified"},
    "Deny": {"id": ID, "reason": "purpose"},
    "Revoke": {"id": ID, "reason": "breach"},
    "LogRelease": Channel.release(ID, cid("m")),
    "LogOutcome": {"release": ID, "sent": 1, "withheld": 0, "bitmapDigest": DIGEST},
    "LogDenials": {"reportingNode": PACS, "unregistered": True, "reason": "no approval", "seq": 1, "count": 1},
    "LogRetrieval": {"release": ID, "outcome": "complete"},
    "ReportTamper": {"release": ID, "instance": INSTANCE, "observed": DIGEST},
    "RequestErase": {"study": STUDY},
    "CancelErase": {"study": STUDY},
    "ConfirmErase": {"study": STUDY},
    "ErasureDone": {"study": STUDY},
    "Cancel": {"id": ID},
    "RevokeCertificate": {"serial": "2a"},
    "RegisterTrainingRun": {"dataset": DATASET_ID, "version": 1, "codeDigest": DIGEST, "releases": [ID]},
    "RegisterModel": {"digest": DIGEST, "run": ID, "metricsDigest": DIGEST},
}
EVERYBODY, HOSPITAL = {"owner", "custodian", "research"}, {"owner", "custodian"}
WHO = {
    "InitPolicy": HOSPITAL,
    "ProposePolicy": HOSPITAL,
    "ConfirmPolicy": HOSPITAL,
    "Anchor": {"owner"},
    "ConfirmStored": {"custodian"},
    "ReportConflict": {"owner"},
    "Supersede": {"owner"},
    "ConfirmSupersede": {"custodian"},
    "Withdraw": {"owner"},
    "Reinstate": HOSPITAL,
    "FlagTampered": HOSPITAL,
    "Resolve": HOSPITAL,
    "ReportRepair": HOSPITAL,
    "RegisterNode": {"owner", "research"},
    "ConfirmNode": {"custodian"},
    "RevokeNode": EVERYBODY,
    "RegisterDataset": HOSPITAL,
    "WithdrawDataset": HOSPITAL,
    "RequestAccess": {"research"},
    "Approve": HOSPITAL,
    "Deny": HOSPITAL,
    "Revoke": EVERYBODY,
    "LogRelease": HOSPITAL,
    "LogOutcome": HOSPITAL,
    "LogDenials": HOSPITAL,
    "LogRetrieval": {"research"},
    "ReportTamper": {"research"},
    "RequestErase": HOSPITAL,
    "CancelErase": HOSPITAL,
    "ConfirmErase": HOSPITAL,
    "ErasureDone": EVERYBODY,
    "Cancel": HOSPITAL,
    "RevokeCertificate": EVERYBODY,
    "RegisterTrainingRun": {"research"},
    "RegisterModel": {"research"},
}
CONTENT_IDS = {
    "ProposePolicy",
    "ReportConflict",
    "Supersede",
    "Withdraw",
    "ReportRepair",
    "RequestAccess",
    "LogRelease",
    "RegisterTrainingRun",
    "RegisterModel",
}


def test_the_functions_are_those_of_the_rule_book() -> None:
    assert set(FUNCTIONS) == set(WHO) == set(VALID)
    assert {name for name, function in FUNCTIONS.items() if function.content_id} == CONTENT_IDS


@pytest.mark.parametrize(
    ("function", "organisation"),
    [(function, name) for function, roles in WHO.items() for name, role in ROLES.items() if role not in roles],
)
def test_a_role_the_rule_book_does_not_name_is_refused(memory: Channel, function: str, organisation: str) -> None:
    memory.refuses("NOT_PERMITTED", "role", organisation, function, **VALID[function])


@pytest.mark.parametrize("function", sorted(set(WHO) - {"InitPolicy"}))
def test_an_organisation_outside_the_policy_is_refused(memory: Channel, function: str) -> None:
    memory.refuses("NOT_PERMITTED", "organisation", "StrangerMSP", function, **VALID[function])


@pytest.mark.parametrize("function", sorted(VALID))
def test_an_unknown_argument_is_refused_by_its_name(memory: Channel, function: str) -> None:
    memory.refuses("INVALID", "organisation", OWNER, function, **VALID[function], organisation=OTHER_LAB)


OPTIONAL = {
    ("LogDenials", "unregistered"),
    ("RequestAccess", "studies"),
    ("Withdraw", "instances"),
    ("RegisterTrainingRun", "dataset"),
    ("RegisterTrainingRun", "version"),
}


@pytest.mark.parametrize(
    ("function", "name"), [(f, name) for f, args in VALID.items() for name in args if (f, name) not in OPTIONAL]
)
def test_a_missing_argument_is_refused_by_its_name(memory: Channel, function: str, name: str) -> None:
    args = {key: value for key, value in VALID[function].items() if key != name}
    memory.refuses("INVALID", name, OWNER, function, **args)


@pytest.mark.parametrize(
    ("function", "name"),
    [(f, name) for f, args in VALID.items() for name in args if name != "policy"],  # its fields: test_policy.py
)
@pytest.mark.parametrize("wrong", [1.5, "Müller^Anna", b"short", -1, [None], {"organisation": 1, "aeTitle": 2}])
def test_a_value_of_another_form_is_refused_by_its_name(
    memory: Channel, function: str, name: str, wrong: object
) -> None:
    memory.refuses("INVALID", name, OWNER, function, **{**VALID[function], name: wrong})


@pytest.mark.parametrize(
    ("function", "name", "wrong"),
    [
        ("Anchor", "count", 0),
        ("Anchor", "count", 100_001),
        ("Anchor", "count", True),
        ("Anchor", "kind", "copied"),
        ("Anchor", "manifestCid", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),  # raw, not dag-cbor
        ("Anchor", "manifestCid", cid("m").upper()),
        ("Anchor", "manifestCid", cid("m")[:-1] + "b"),  # not canonical base32
        ("Supersede", "reason", "the technologist mixed up two patients"),
        ("Deny", "reason", "Mrs Miller objects"),
        ("Revoke", "reason", ""),
        ("LogDenials", "reason", "no approval for Mrs Miller"),
        ("LogDenials", "unregistered", False),
        ("FlagTampered", "what", ["(0010,0010) PatientName"]),
        ("FlagTampered", "what", ["(0010,0010)"] * 2),
        ("RegisterNode", "aeTitle", ""),
        ("RegisterNode", "aeTitle", "A" * 17),
        ("RegisterNode", "aeTitle", " LAB1"),
        ("RegisterNode", "aeTitle", "LAB\\1"),
        ("RegisterNode", "certDigests", [b"1" * 32, b"2" * 32, b"3" * 32]),
        ("RequestAccess", "studies", []),
        ("RequestAccess", "studies", [STUDY, STUDY]),
        ("RequestAccess", "studies", [number.to_bytes(16, "big") for number in range(257)]),
        ("RequestAccess", "sopClasses", []),
        ("RequestAccess", "sopClasses", ["1.2.840.01"]),
        ("RequestAccess", "sopClasses", ["1." * 32 + "1"]),
        ("RequestAccess", "duo", ["DUO:0000001"]),  # the abstract parent of all permissions
        ("RequestAccess", "days", 0),
        ("RequestAccess", "release", "pseudonymised"),
        ("RequestAccess", "node", {**LAB_NODE, "host": "10.0.0.1"}),
        ("RequestAccess", "future", 1),
        ("LogRelease", "anchors", []),
        ("LogRelease", "count", 0),
        ("LogRelease", "standingVersion", -1),
        ("LogRelease", "proof", {"index": 0}),
        ("LogRelease", "proof", {"index": -1, "path": []}),
        ("LogRelease", "proof", {"index": 100_000, "path": []}),
        ("LogRelease", "proof", {"index": 0, "path": [b"short"]}),
        ("LogRelease", "proof", {"index": 0, "path": [DIGEST] * 18}),
        ("LogRelease", "proof", {"index": 0, "path": [], "root": DIGEST}),
        ("Withdraw", "instances", []),
        ("Withdraw", "instances", [number.to_bytes(32, "big") for number in range(1025)]),
        ("Withdraw", "reason", "113000"),
        ("RegisterDataset", "version", 0),
        ("RegisterDataset", "count", 0),
        ("RegisterDataset", "id", b"\x02" * 32),
        ("LogRetrieval", "outcome", "mostly"),
        ("ReportTamper", "observed", None),
        ("RevokeCertificate", "serial", "0a"),
        ("RevokeCertificate", "serial", "A1"),
        ("RevokeCertificate", "serial", ""),
        ("RevokeCertificate", "serial", "f" * 41),
        ("RegisterTrainingRun", "releases", []),
        ("RegisterTrainingRun", "releases", [ID, ID]),
    ],
)
def test_a_value_out_of_range_or_list_is_refused(memory: Channel, function: str, name: str, wrong: object) -> None:
    memory.refuses("INVALID", name, OWNER, function, **{**VALID[function], name: wrong})


@pytest.mark.parametrize("ae_title", ["A", "LAB/1", "a b", "16 CHARACTERS 16", "~!#"])
def test_every_ae_title_of_the_standard_can_be_a_node(channel: Channel, ae_title: str) -> None:
    node = channel.node(LAB, ae_title)
    assert [row["node"] for row in channel.ask("Nodes")] == [node]


@pytest.mark.parametrize("function", ["Anchor", *sorted(CONTENT_IDS)])
@pytest.mark.parametrize("nonce", [b"", b"\x01" * 15, b"\x01" * 17])
def test_a_nonce_of_another_length_is_refused(memory: Channel, function: str, nonce: bytes) -> None:
    organisation = OWNER if "owner" in WHO[function] else LAB
    memory.refuses("INVALID", "nonce", organisation, function, nonce=nonce, **VALID[function])


def test_an_unknown_function_is_refused(channel: Channel) -> None:
    channel.refuses("INVALID", "function", OWNER, "Release")


@pytest.mark.parametrize("query", sorted(QUERIES))
def test_a_query_refuses_an_unknown_argument_by_its_name(memory: Channel, query: str) -> None:
    with pytest.raises(ContractError, match="INVALID patient"):
        memory.ask(query, patient="Miller")


def test_an_unknown_query_is_refused(memory: Channel) -> None:
    with pytest.raises(ContractError, match="INVALID function"):
        memory.ask("AllPatients")


def test_what_a_custodian_confirms_must_exist(channel: Channel) -> None:
    channel.refuses("NOT_FOUND", "manifestCid", CUSTODIAN, "ConfirmStored", manifestCid=cid("nothing"))
    channel.refuses("NOT_FOUND", "id", CUSTODIAN, "ConfirmSupersede", id=ID)
    channel.refuses("NOT_FOUND", "node", CUSTODIAN, "ConfirmNode", node=LAB_NODE, version=1)
