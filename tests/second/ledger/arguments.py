"""Every argument of every function and query: missing, unknown, of the wrong form, and at both bounds."""

from tests.second.ledger.cast import (
    CUSTODIAN,
    DATASET_REQUEST,
    DAY,
    LAB,
    M1,
    NOWHERE,
    OWNER,
    POLICY,
    REQUEST,
    STUDY,
    UNKNOWN,
    Args,
    anchor,
    approve,
    digest,
    flag,
    manifest,
    node,
    outcome,
    register_dataset,
    release,
    request,
    token,
)
from tests.second.ledger.cbor import Value
from tests.second.ledger.forms import FUNCTIONS, QUERIES
from tests.second.ledger.openings import after, variant
from tests.second.ledger.story import Story
from tests.second.ledger.table import cells

_DIGESTS = [digest(f"many {number}") for number in range(1025)]
_TOKENS = [token(f"many {number}") for number in range(257)]
_MANIFESTS = [manifest(f"many {number}") for number in range(1025)]
_CLASSES = [f"1.2.840.{number}" for number in range(257)]
_NOT_TOKEN: list[Value] = [STUDY[:15], STUDY + b"\0", STUDY.hex(), None]
_NOT_DIGEST: list[Value] = [digest("a")[:31], digest("a") + b"\0", digest("a").hex()]

_DUO = (4, 6, 7, 11, 12, 15, 16, 18, 19, 20, 21, 22, 24, 25, 26, 27, 28, 29, 42, 43, 44, 45, 46)

_NO_UIDS = ("", "1", "1.2.840.", ".1.2", "1..2", "1.02", "1.-2", "1.2 ", "1.\u0662", "1." + "2" * 63)

# By form: values that are not of it.
WRONG: dict[str, list[Value]] = {
    "map": [None, [], "policy"],
    "token": _NOT_TOKEN,
    "digest": [*_NOT_DIGEST, None],
    "observed": _NOT_DIGEST,
    "cid": [
        M1.upper(),
        M1[:-1],
        M1 + "a",
        # the same bits but for the two that must be zero
        M1[:-1] + "abcdefghijklmnopqrstuvwxyz234567"["abcdefghijklmnopqrstuvwxyz234567".index(M1[-1]) + 1],
        "bafkrei" + M1[7:],
        "z" + M1[1:],
        M1.encode(),
        "",
    ],
    "count": [0, 100_001, -1, True, "1", None],
    "sum": [-1, 100_001, False, "0", None],
    "number": [-1, 2**53 + 1, False, "0", None],
    "limit": [0, 51, True, "1", None],
    "sequence": [-1, False, "0", None],
    "time": [-1, 2**40 + 1, False, "0", None],
    "denied": [0, 2**31 + 1, True, "1", None],
    "version": [0, -1, 2**31 + 1, True, "1"],
    "days": [0, 3651, True, "30"],
    "bool": [0, 1, "true", None],
    "true": [False, 1, None],
    "serial": ["", "0", "02", "2A", "-2", "2g", "2" * 41, 2, None],
    "aeTitle": ["", "A" * 17, "A\\B", "A\nB", "LABBOX ", " LABBOX", " ", "LÄBBOX", "LAB\x7f", b"LABBOX", None],
    "mspId": ["", "-Lab", ".Lab", "Lab MSP", "Lab/MSP", "LäbMSP", "LabMSP\n", "L" * 65, 1, None],
    "node": [
        "LABBOX",
        {"organisation": LAB},
        {"aeTitle": "LABBOX"},
        node(LAB) | {"port": 104},
        node(LAB, "A" * 17),
        node(LAB) | {"organisation": 1},
        node(LAB) | {"organisation": "Lab MSP"},
        node(LAB) | {"organisation": "L" * 65},
        None,
    ],
    "nodeRole": ["viewer", "", "Research", None],
    "certs": [_DIGESTS[:3], [_DIGESTS[0]] * 2, [_DIGESTS[0][:31]], ["a"], None],
    "kind": ["copy", "Original", None],
    "profile": ["113099", "113113", "", 113100],
    "supersede": ["patient", "", None],
    "withdraw": ["113000", "113002", 113001, None],
    "deny": ["breach", "", None],
    "revoke": ["purpose", "", None],
    "denial": ["No approval", "", None],
    "retrieval": ["done", "", None],
    "release": ["raw", "", None],
    "studies": [[], _TOKENS, [STUDY, STUDY], [STUDY[:15]], STUDY],
    "instances": [[], _DIGESTS, [_DIGESTS[0]] * 2, [STUDY], None],
    "classes": [[], _CLASSES, _CLASSES[:1] * 2, *([uid] for uid in _NO_UIDS), [12], None],
    "duo": [
        *([f"DUO:{number:07d}"] for number in range(1, 50) if number not in _DUO),
        ["DUO:42"],
        ["DUO:0000006"] * 2,
        "DUO:0000006",
        None,
    ],
    "anchors": [[], _MANIFESTS, [M1, M1], ["M1"], M1],
    "releases": [[], _DIGESTS, [_DIGESTS[0]] * 2, [STUDY], None],
    "what": [list(range(65)), [0, 0], [-1], [100_001], ["(0010,001)"], ["0010,0010"], [True], None],
    "proof": [
        {"index": 0},
        {"path": []},
        {"index": -1, "path": []},
        {"index": 100_000, "path": []},
        {"index": True, "path": []},
        {"index": 0, "path": _DIGESTS[:18]},
        {"index": 0, "path": [STUDY]},
        {"index": 0, "path": [], "size": 5},
        [],
        None,
    ],
    "key": ["", "k" * 401, "policy version", "pölicy", "policy\n", 1, b"policy", None],
    "requestState": ["closed", "", None],
}

# By form: values at its bounds, every code, and forms that look odd and are right.
AT_BOUNDS: dict[str, list[Value]] = {
    "number": [0, 2**53],
    "limit": [1, 50],
    "sequence": [0, 2**63 - 1],
    "time": [0, 2**40],
    "denied": [1, 2**31],
    "version": [1, 2**31],
    "mspId": ["0", "L" + "-." * 31 + "9"],
    "key": ["!", "~" * 400],
    "duo": [[], *([f"DUO:{number:07d}"] for number in _DUO)],
    "supersede": ["patient-mismatch", "wrong-worklist", "wrong-laterality", "metadata-corrected", "quality", "other"],
    "withdraw": ["113001", "113037", "113038", "113039"],
    "deny": ["purpose", "consent", "ethics", "scope", "duplicate", "incomplete", "other"],
    "revoke": ["completed", "consent-withdrawn", "breach", "error", "other"],
    "retrieval": ["complete", "partial", "failed"],
    "release": ["identified", "deidentified"],
    "denial": [
        "no approval",
        "approval expired",
        "ledger unavailable",
        "withheld: integrity",
        "withdrawn",
        "release form not available",
        "destination not permitted",
        "spool full",
        "not readable",
        "uid mismatch",
        "duplicate uid",
        "bad identifier",
    ],
    "count": [1, 100_000],
    "sum": [0, 100_000],
    "days": [1, 365],
    "serial": ["2", "f" * 40],
    "aeTitle": ["A", "A" * 16, "A B"],
    "certs": [[], _DIGESTS[:2]],
    "studies": [[STUDY], [STUDY, *_TOKENS[:255]]],
    "instances": [_DIGESTS[:1], _DIGESTS[:1024]],
    "classes": [_CLASSES[:1], _CLASSES[:256], ["1." + "2" * 62]],
    "anchors": [[M1], [M1, *_MANIFESTS[:1023]]],
    "releases": [_DIGESTS[:1], _DIGESTS[:1024]],
    "what": [[], [*range(63), 100_000], ["(FFFE,E000)", 0]],
    "observed": [None],
}


# Arguments that a function's own rule refuses in the same words; their bounds are seen in `_by_own_rules`.
OWN_RULES = {
    ("FlagTampered", "n"),
    ("LogOutcome", "sent"),
    ("RegisterDataset", "version"),
    ("Approve", "until"),
    ("RequestAccess", "release"),
    ("Approve", "release"),
}


def usual() -> dict[str, tuple[str, str, Args]]:
    """For each function a call that commits: (opening, by, args)."""
    calls: dict[str, tuple[str, str, Args]] = {}
    for function, *_, came, story in cells():
        if came == "yes" and story.start:
            step = story.steps[-1]
            calls.setdefault(function, (story.start.name, step["by"], step["args"]))
    return calls


def stories() -> list[Story]:
    """One for the wrong arguments of each function, one for those at the bounds, one for the queries'."""
    told = []
    for function, (opening, by, args) in usual().items():
        told.append(_wrong_arguments(after(opening, f"{function}: wrong arguments"), function, by, args))
        if set(FUNCTIONS[function].form_names.values()) & AT_BOUNDS.keys():
            told.append(_at_bounds(after(opening, f"{function}: arguments at their bounds"), function, by, args))
    return [*told, _order(), *_by_own_rules(), _policies(), _proposals(), _wrong_questions()]


def _wrong_arguments(story: Story, function: str, by: str, args: Args) -> Story:
    row = FUNCTIONS[function]
    for name, form in row.form_names.items():
        if name in row.required:
            without = {other: value for other, value in args.items() if other != name}
            story.refused(f"INVALID {name}", by, function, without)
        for value in WRONG[form]:
            story.refused(f"INVALID {name}", by, function, args | {name: value})
    story.refused("INVALID comment", by, function, args | {"comment": "free text"})
    story.refused("INVALID Id", by, function, args | {"Id": digest("a")})
    for nonce in (b"", bytes(15), bytes(17)):
        story.refused("INVALID nonce", by, function, args, **({"nonce": nonce}))
    story.does(by, function, args)
    return story


def _at_bounds(story: Story, function: str, by: str, args: Args) -> Story:
    nonce = 1
    for name, form in FUNCTIONS[function].form_names.items():
        for value in AT_BOUNDS.get(form, []):
            nonce += 1
            came = story.tries(by, function, args | {name: value}, nonce=nonce)
            assert came != f"INVALID {name}" or (function, name) in OWN_RULES, came
    return story


def _order() -> Story:
    story = after("asked", "arguments: which one is named when several are wrong")
    several = {"comment": "", "reason": "", "id": b""}
    story.refused("INVALID comment", OWNER, "Deny", several)
    story.refused("INVALID id", OWNER, "Deny", {"reason": ""})
    story.refused("INVALID id", OWNER, "Deny", {"reason": "", "id": b"", "textCommitment": b""})
    story.refused("INVALID reason", OWNER, "Deny", {"textCommitment": b"", "id": REQUEST})
    story.refused("INVALID reason", OWNER, "Deny", {"id": REQUEST, "reason": ""}, nonce=b"")
    story.refused("INVALID id", LAB, "Deny", {"reason": ""})
    story.refused("INVALID function", LAB, "Permit", {"comment": ""}, nonce=b"")
    story.refused("INVALID function", OWNER, "deny", {"id": REQUEST, "reason": "scope"})
    return story


def _by_own_rules() -> list[Story]:
    """Bounds that a function's own rules let be seen only in some states."""
    most = variant("RequestAccess: the most days there are", "nodes confirmed", max_days=3650)
    most.does(LAB, "RequestAccess", request(days=3650))
    most.refused("INVALID days", LAB, "RequestAccess", request(days=3651))
    longest = after("dataset approved", "LogRelease: the longest proof")
    path = {"index": 0, "path": _DIGESTS[:17]}
    longest.refused("NOT_PERMITTED study", OWNER, "LogRelease", release(DATASET_REQUEST, proof=path))
    path = {"index": 0, "path": _DIGESTS[:18]}
    longest.refused("INVALID proof", OWNER, "LogRelease", release(DATASET_REQUEST, proof=path))
    path = {"index": 99_999, "path": []}
    longest.refused("NOT_PERMITTED study", OWNER, "LogRelease", release(DATASET_REQUEST, proof=path))
    path = {"index": 100_000, "path": []}
    longest.refused("INVALID proof", OWNER, "LogRelease", release(DATASET_REQUEST, proof=path))
    profiles = after("policy", "Anchor: first and last profile")
    for number, profile in enumerate(("113100", "113112")):
        derived = {"kind": "derived", "from": digest("from"), "profile": profile}
        profiles.does(OWNER, "Anchor", anchor(_MANIFESTS[number], **derived))
    for wrong in ("113099", "113113"):
        profiles.refused("INVALID profile", OWNER, "Anchor", anchor(NOWHERE, **(derived | {"profile": wrong})))
    largest = after("dataset", "arguments: the largest numbers, where an earlier rule refuses")
    for earlier, by, function, name, args in (
        ("NOT_FOUND manifestCid", OWNER, "FlagTampered", "n", flag(100_000, NOWHERE)),
        ("NOT_FOUND release", OWNER, "LogOutcome", "sent", outcome(UNKNOWN, sent=100_000)),
        ("NOT_PERMITTED id", CUSTODIAN, "RegisterDataset", "version", register_dataset(2**31)),
        ("NOT_FOUND id", OWNER, "Approve", "until", approve(UNKNOWN, 2**40)),
    ):
        largest.refused(earlier, by, function, args)
        largest.refused(f"INVALID {name}", by, function, args | {name: args[name] + 1})
    return [most, longest, profiles, largest]


def wrong_policies() -> dict[str, list[Args]]:
    """By field: policies that are wrong in this field alone."""
    members = POLICY["organisations"]
    crowd = {f"Lab{number}MSP": "research" for number in range(255)}
    values: dict[str, list[Value]] = {
        "organisations": [
            {OWNER: "owner"},
            {CUSTODIAN: "custodian", LAB: "research"},
            {OWNER: "owner", LAB: "research"},
            members | {LAB: "owner"},
            members | {LAB: "custodian"},
            members | {LAB: "auditor"},
            members | {"Lab 3": "research"},
            members | {"L" * 65: "research"},
            {OWNER: "owner", CUSTODIAN: "custodian"} | crowd,
            [OWNER, CUSTODIAN],
        ],
        "approvals": [["auditor"], ["custodian", "custodian"], "custodian"],
        "identified_needs": [["auditor"], ["owner", "owner"], "owner"],
        "release_forms": [["raw"], ["identified", "identified"], "identified"],
        "max_days": [0, 3651, True, "365"],
        "lease_s": [0, 61, True, "60"],
        "require_stored": [0, 1, "false"],
        "erase_grace_s": [-1, 365 * DAY + 1, False, "604800"],
        "max_clock_skew_s": [-1, DAY + 1, False, "0"],
        "excluded_origins": [["fax"], ["stow", "stow"], [1], "stow"],
        "certificates": [
            {OWNER: bytes(4097)},
            {OWNER: b""},
            {OWNER: "a"},
            {"Owner MSP": b"a"},
            {f"Lab{number}MSP": b"a" for number in range(257)},
            [b"a"],
        ],
    }
    wrong = {name: [POLICY | {name: value} for value in values[name]] for name in values}
    for name in POLICY:
        wrong[name].append({other: value for other, value in POLICY.items() if other != name})
    return wrong | {"colour": [POLICY | {"colour": "red"}]}


def _policies() -> Story:
    story = after("nothing", "InitPolicy: wrong policies")
    for field, policies in wrong_policies().items():
        for policy in policies:
            story.refused(f"INVALID {field}", OWNER, "InitPolicy", {"policy": policy})
    story.refused("INVALID policy", OWNER, "InitPolicy", {"policy": POLICY | {"lease_s": 59}})
    story.refused("INVALID policy", CUSTODIAN, "InitPolicy", {"policy": POLICY | {"certificates": {OWNER: b"DER"}}})
    story.does(CUSTODIAN, "InitPolicy", {"policy": POLICY})
    return story


def _proposals() -> Story:
    story = after("policy", "ProposePolicy: wrong policies, and fields at their bounds")
    for field, policies in wrong_policies().items():
        for policy in policies:
            story.refused(f"INVALID {field}", CUSTODIAN, "ProposePolicy", {"policy": policy})
    crowd = POLICY["organisations"] | {f"Lab{number}MSP": "research" for number in range(252)}
    for fields in (
        {"max_days": 1, "lease_s": 1, "erase_grace_s": 0, "max_clock_skew_s": 0},
        {"max_days": 3650, "lease_s": 60, "erase_grace_s": 365 * DAY, "max_clock_skew_s": DAY},
        {"organisations": crowd},
        {"organisations": {OWNER: "owner", CUSTODIAN: "custodian"}},
        {"organisations": POLICY["organisations"] | {"L" * 64: "research"}},
        {"certificates": {OWNER: bytes(4096)}},
        {"certificates": {f"Lab{number}MSP": b"a" for number in range(256)}},
        {"excluded_origins": []},
        {
            "excluded_origins": [
                "tls-modality",
                "addressed-ae",
                "rest-user",
                "stow",
                "reconciled",
                "backfill",
                "research",
            ]
        },
        {"release_forms": ["identified", "deidentified"]},
    ):
        story.does(CUSTODIAN, "ProposePolicy", {"policy": POLICY | fields})
    return story


def _wrong_questions() -> Story:
    story = after("approved", "queries: wrong arguments, and arguments at their bounds")
    given: Args = {
        "study": STUDY,
        "node": node(LAB),
        "manifestCid": M1,
        "id": REQUEST,
        "state": "open",
        "key": "policy",
    }
    for query, row in QUERIES.items():
        args = {name: given[name] for name in row.form_names if name in row.required}
        for name, form in row.form_names.items():
            for value in WRONG[form]:
                assert story.asks(query, args | {name: value}) == ["INVALID", name]
            for value in AT_BOUNDS.get(form, []):
                assert story.asks(query, args | {name: value}) != ["INVALID", name]
            if name in args:
                assert story.asks(query, {n: v for n, v in args.items() if n != name}) == ["INVALID", name]
        assert story.asks(query, args | {"colour": 1}) == ["INVALID", "colour"]
        story.asks(query, args)
    assert story.asks("Anchor", {}) == ["INVALID", "function"]
    return story
