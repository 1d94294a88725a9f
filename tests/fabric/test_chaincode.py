"""The chaincode's tables are the contract's: codes, reasons, arguments; `go test` holds Go to the same file."""

import json
from typing import Any

from orthanc_ledger.ledger.contract import FUNCTIONS, QUERIES, codes, policy, requests
from orthanc_ledger.ledger.contract.arguments import Schema
from orthanc_ledger.reasons import Reason
from tests.conftest import ROOT

TABLES = ROOT / "chaincode" / "contract" / "testdata" / "contract.json"


def names(schema: Schema) -> list[str]:
    return [name if argument.required else f"{name}?" for name, argument in schema.items()]


def tables() -> dict[str, Any]:
    lists = {
        "anchorKinds": codes.ANCHOR_KINDS,
        "denialReasons": codes.DENIAL_REASONS,
        "duo": sorted(codes.DUO),
        "origins": codes.ORIGINS,
        "profiles": codes.DEIDENTIFICATION_PROFILES,
        "reasons": [reason.value for reason in Reason],
        "releaseForms": codes.RELEASE_FORMS,
        "retrievalOutcomes": codes.RETRIEVAL_OUTCOMES,
        "revocationReasons": codes.REVOCATION_REASONS,
        "roles": codes.ROLES,
        "states": requests.STATES,
        "supersedeReasons": codes.SUPERSEDE_REASONS,
        "withdrawalReasons": codes.WITHDRAWAL_REASONS,
    }
    node_roles = {role: list(known) for role, known in codes.NODE_ROLES.items()}
    return {
        "codes": {**{name: list(known) for name, known in lists.items()}, "nodeRoles": node_roles},
        "functions": {name: {"roles": list(f.roles), "arguments": names(f.arguments)} for name, f in FUNCTIONS.items()},
        "queries": {name: names(query.arguments) for name, query in QUERIES.items()},
        "policy": names(policy.POLICY),
    }


def test_codes_roles_and_arguments_are_those_of_the_contract() -> None:
    assert tables() == json.loads(TABLES.read_text(encoding="utf-8"))
