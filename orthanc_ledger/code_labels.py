"""What the contract's codes of reasons, outcomes and assurances mean to people (docs/contract.md, "Codes")."""

from collections.abc import Mapping

LABELS: Mapping[str, Mapping[str, str]] = {
    "Deny": {
        "purpose": "outside what it may be used for",
        "consent": "the patients' consent does not cover it",
        "ethics": "no valid ethics approval",
        "scope": "more than the purpose needs",
        "duplicate": "asked already",
        "incomplete": "description or codes are missing",
        "other": "another reason",
    },
    "Revoke": {
        "completed": "no longer needed",
        "consent-withdrawn": "consent was withdrawn",
        "breach": "terms were broken",
        "error": "approved by mistake",
        "other": "another reason",
    },
    "Supersede": {
        "patient-mismatch": "wrong patient's identity in the object",
        "wrong-worklist": "wrong order or study",
        "wrong-laterality": "wrong side or body part",
        "metadata-corrected": "other attributes put right",
        "quality": "the acquisition is replaced",
        "other": "another reason",
    },
    "Withdraw": {  # PS3.16 CID 7011
        "113001": "rejected for quality reasons",
        "113037": "rejected for patient safety reasons",
        "113038": "incorrect modality worklist entry",
        "113039": "data retention period expired",
    },
    "LogRetrieval": {
        "complete": "everything came and fits",
        "partial": "not everything came",
        "failed": "nothing came that fits",
    },
}
"""Function → code → words."""

ASSURANCES = {"person": "person-key", "node": "node-asserted"}
"""What a signature says about who signed: a person whose key it is, or a node for one of its people."""


def code_label(function: str, code: str) -> str:
    """What a code of a function means; the code itself where nobody here knows it: a newer contract's."""
    return LABELS.get(function, {}).get(code, code)
