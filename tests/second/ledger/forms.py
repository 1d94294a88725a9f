"""The forms of arguments, and the table of functions and queries: the columns *who* and *arguments* of the page."""

import re
from base64 import b32encode
from collections.abc import Callable
from dataclasses import dataclass

from tests.second.ledger.cbor import Value

Form = Callable[[Value], bool]

ROLES = "owner custodian research"
ORIGINS = "tls-modality addressed-ae rest-user stow reconciled backfill research"
DUO = [f"DUO:00000{n:02d}" for n in (4, 6, 7, 11, 42, 12, 15, 16, *range(18, 23), *range(24, 30), *range(43, 47))]
DENIALS = """no approval|approval expired|ledger unavailable|withheld: integrity|withdrawn|release form not available|\
destination not permitted|spool full|not readable|uid mismatch|duplicate uid|bad identifier"""


def octets(size: int) -> Form:
    """Bytes of one length."""
    return lambda value: type(value) is bytes and len(value) == size


def number(low: int, high: int) -> Form:
    """An integer, no boolean, both bounds included."""
    return lambda value: type(value) is int and low <= value <= high


def words(*allowed: str) -> Form:
    """One of some texts."""
    return lambda value: type(value) is str and value in allowed


def text(pattern: str) -> Form:
    """A text that the pattern matches whole."""
    return lambda value: type(value) is str and re.fullmatch(pattern, value) is not None


def listed(form: Form, low: int, high: int) -> Form:
    """A list of one form's values without repetition."""
    return lambda value: (
        type(value) is list
        and low <= len(value) <= high
        and all(map(form, value))
        and all(item not in value[:at] for at, item in enumerate(value))
    )


def record(**fields: Form) -> Form:
    """A map with exactly these fields."""
    return lambda value: (
        type(value) is dict and value.keys() == fields.keys() and all(fields[k](value[k]) for k in fields)
    )


def is_manifest_cid(value: Value) -> bool:
    """CIDv1 dag-cbor sha2-256, lower-case base32: 290 bits for 36 bytes, so the last two are zero."""
    if type(value) is not str or not re.fullmatch("b[a-z2-7]{58}", value):
        return False
    bits = "".join(f"{'abcdefghijklmnopqrstuvwxyz234567'.index(letter):05b}" for letter in value[1:])
    raw = int(bits[:288], 2).to_bytes(36, "big")
    return raw[:4] == b"\x01\x71\x12\x20" and value[1:] == b32encode(raw).decode().lower().rstrip("=")


def is_ae_title(value: Value) -> bool:
    """PS3.5 6.2 AE: no backslash, no control character; spaces at the ends mean nothing, so there are none."""
    if type(value) is not str or not 1 <= len(value) <= 16 or value != value.strip(" "):
        return False
    return all(" " <= letter <= "~" and letter != "\\" for letter in value)


def is_uid(value: Value) -> bool:
    """PS3.5 9.1: two or more numbers without leading zeros, between dots; at most 64 characters."""
    if type(value) is not str or not value.isascii() or len(value) > 64:
        return False
    numbers = value.split(".")
    return len(numbers) >= 2 and all(n.isdigit() and (n == "0" or n[0] != "0") for n in numbers)


MSP_ID = text("[A-Za-z0-9][A-Za-z0-9.-]{0,63}")

FORMS: dict[str, Form] = {
    "map": lambda value: type(value) is dict,
    "token": octets(16),
    "digest": octets(32),
    "observed": lambda value: value is None or octets(32)(value),
    "cid": is_manifest_cid,
    "count": number(1, 100_000),
    "sum": number(0, 100_000),
    "number": number(0, 1 << 53),
    "limit": number(1, 50),
    "sequence": number(0, (1 << 63) - 1),
    "time": number(0, 1 << 40),
    "denied": number(1, 1 << 31),
    "version": number(1, 1 << 31),
    "days": number(1, 3650),
    "bool": lambda value: type(value) is bool,
    "true": lambda value: value is True,
    "serial": text("[1-9a-f][0-9a-f]{0,39}"),
    "mspId": MSP_ID,
    "aeTitle": is_ae_title,
    "node": record(organisation=MSP_ID, aeTitle=is_ae_title),
    "nodeRole": words("modality", "clinical", "research"),
    "certs": listed(octets(32), 0, 2),
    "kind": words("original", "derived"),
    "profile": words(*map(str, range(113100, 113113))),
    "supersede": words(
        "patient-mismatch", "wrong-worklist", "wrong-laterality", "metadata-corrected", "quality", "other"
    ),
    "withdraw": words("113001", "113037", "113038", "113039"),
    "deny": words("purpose", "consent", "ethics", "scope", "duplicate", "incomplete", "other"),
    "revoke": words("completed", "consent-withdrawn", "breach", "error", "other"),
    "denial": words(*DENIALS.split("|")),
    "retrieval": words("complete", "partial", "failed"),
    "release": words("identified", "deidentified"),
    "studies": listed(octets(16), 1, 256),
    "instances": listed(octets(32), 1, 1024),
    "classes": listed(is_uid, 1, 256),
    "duo": listed(words(*DUO), 0, len(DUO)),
    "anchors": listed(is_manifest_cid, 1, 1024),
    "releases": listed(octets(32), 1, 1024),
    "what": listed(lambda value: text(r"\([0-9A-F]{4},[0-9A-F]{4}\)")(value) or number(0, 100_000)(value), 0, 64),
    "proof": record(
        index=number(0, 99_999),
        path=lambda value: type(value) is list and len(value) <= 17 and all(map(octets(32), value)),
    ),
    "key": text("[!-~]{1,400}"),
    "requestState": words("open", "approved", "expired", "denied", "revoked"),
}


@dataclass(frozen=True)
class Row:
    """One function: whether marked *id*, the roles that may call it (empty: by its own rules), its arguments."""

    is_id: bool
    roles: tuple[str, ...]
    forms: dict[str, Form]
    required: frozenset[str]
    form_names: dict[str, str]

    def wrong(self, args: Value) -> str | None:
        """The argument that is at fault, or None: unknown ones first, then in the table's order."""
        unknown = [name for name in args if name not in self.forms]
        if unknown:
            return min(unknown, key=lambda name: (len(name.encode()), name.encode()))
        for name, form in self.forms.items():
            if (name in self.required) if name not in args else not form(args[name]):
                return name
        return None


def _rows(table: str) -> dict[str, Row]:
    """A row a line; one that begins with a blank goes on from the last."""
    rows = {}
    for line in table.strip().replace("\n ", " ").splitlines():
        name, who, arguments = (part.strip() for part in line.split("|"))
        pairs = [pair.split(":") for pair in arguments.split()]
        rows[name.rstrip("*")] = Row(
            name.endswith("*"),
            tuple(who.split()),
            {argument.rstrip("?"): FORMS[form] for argument, form in pairs},
            frozenset(argument for argument, _ in pairs if not argument.endswith("?")),
            {argument.rstrip("?"): form for argument, form in pairs},
        )
    return rows


FUNCTIONS = _rows("""
InitPolicy           | owner custodian          | policy:map
ProposePolicy*       | owner custodian          | policy:map
ConfirmPolicy        | owner custodian          | id:digest
Anchor               | owner                    | manifestCid:cid study:token root:digest count:count kind:kind
            from?:digest profile?:profile
ConfirmStored        | custodian                | manifestCid:cid
ReportConflict*      | owner                    | study:token instance:digest presented:digest
Supersede*           | owner                    | study:token instance:digest oldManifest:cid newManifest:cid
            reason:supersede
ConfirmSupersede     | custodian                | id:digest
Withdraw*            | owner                    | study:token instances?:instances reason:withdraw
Reinstate            | owner custodian          | id:digest
FlagTampered         | owner custodian          | study:token instance:digest n:sum manifestCid:cid
            observed:observed what:what
Resolve              | owner custodian          | study:token instance:digest n:sum manifestCid:cid
ReportRepair*        | owner custodian          | study:token instance:digest node:node
RegisterNode         | owner research           | aeTitle:aeTitle role:nodeRole certDigests:certs
ConfirmNode          | custodian                | node:node version:version
RevokeNode           |                          | node:node
RegisterDataset      | owner custodian          | id:token version:version root:digest count:count
            descriptorDigest:digest duo:duo
WithdrawDataset      | owner custodian          | id:token version:version
RequestAccess*       | research                 | studies?:studies dataset?:token version?:version
            sopClasses:classes duo:duo days:days node:node release:release future:bool publicKeyDigest?:digest
            descriptionDigest:digest
Approve              | owner custodian          | id:digest until:time release:release
Deny                 | owner custodian          | id:digest reason:deny textCommitment?:digest
Revoke               | owner custodian research | id:digest reason:revoke textCommitment?:digest
LogRelease*          | owner custodian          | request:digest study:token proof?:proof anchors:anchors
            instancesRoot:digest count:count standingVersion:number node:node renews?:digest
LogOutcome           | owner custodian          | release:digest sent:sum withheld:sum bitmapDigest:digest
LogDenials           | owner custodian          | reportingNode:node peer?:node unregistered?:true reason:denial
            seq:number count:denied
LogRetrieval         | research                 | release:digest outcome:retrieval
ReportTamper         | research                 | release:digest instance:digest observed:digest
RequestErase         | owner custodian          | study:token
CancelErase          | owner custodian          | study:token
ConfirmErase         | owner custodian          | study:token
ErasureDone          | owner custodian research | study:token
Cancel               | owner custodian          | id:digest
RevokeCertificate    | owner custodian research | serial:serial
RegisterTrainingRun* | research                 | dataset?:token version?:version codeDigest:digest releases:releases
RegisterModel*       | research                 | digest:digest run:digest metricsDigest:digest
""")

QUERIES = _rows("""
CheckAccess     | | study:token node:node proof?:proof
ApprovedStudies | | node:node offset?:number limit?:limit
GetAnchor       | | manifestCid:cid
Anchors         | | after?:cid offset?:number limit?:limit
AnchorsOfStudy  | | study:token after?:number offset?:number limit?:limit
StandingOf      | | study:token
GetRequest      | | id:digest
RequestsByState | | state?:requestState after?:digest offset?:number limit?:limit
Audit           | | study?:token organisation?:mspId from?:time until?:time after?:sequence offset?:number
            limit?:limit
HistoryOf       | | key:key offset?:number limit?:limit
Nodes           | | offset?:number limit?:limit
Datasets        | | offset?:number limit?:limit
Pending         | | offset?:number limit?:limit
GetPolicy       | |
""")

POLICY: dict[str, Form] = {
    "organisations": lambda value: (
        type(value) is dict
        and 2 <= len(value) <= 256
        and all(map(MSP_ID, value))
        and all(map(words(*ROLES.split()), value.values()))
        and sum(role == "owner" for role in value.values()) == 1
        and sum(role == "custodian" for role in value.values()) == 1
    ),
    "approvals": listed(words("owner", "custodian"), 1, 2),
    "identified_needs": listed(words("owner", "custodian"), 1, 2),
    "release_forms": listed(words("identified", "deidentified"), 1, 2),
    "max_days": number(1, 3650),
    "lease_s": number(1, 60),
    "require_stored": lambda value: type(value) is bool,
    "erase_grace_s": number(0, 365 * 86_400),
    "max_clock_skew_s": number(0, 86_400),
    "excluded_origins": listed(words(*ORIGINS.split()), 0, 7),
    "certificates": lambda value: (
        type(value) is dict
        and len(value) <= 256
        and all(map(MSP_ID, value))
        and all(type(item) is bytes and 1 <= len(item) <= 4096 for item in value.values())
    ),
}


def wrong_field(policy: Value) -> str | None:
    """The policy's field that is at fault, or None: unknown ones first, then in the table's order."""
    required = frozenset(POLICY) - {"certificates"}
    return Row(False, (), POLICY, required, {}).wrong(policy)
