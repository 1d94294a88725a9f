"""A study's record on the ledger, told to people: what happened to it, and what of it was released."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

from orthanc_ledger.code_labels import ASSURANCES, code_label
from orthanc_ledger.duo import label
from orthanc_ledger.ledger import Ledger, all_rows
from orthanc_ledger.provenance import Event, Released, Tone
from orthanc_ledger.words import counted, spoken

Row = Mapping[str, Any]

_WHAT = {
    "Anchor": "anchored on the ledger",
    "ConfirmStored": "the custodian holds a copy",
    "ReportConflict": "other content came under a known UID",
    "Supersede": "a correction was proposed",
    "ConfirmSupersede": "the correction was confirmed",
    "Cancel": "a proposal was cancelled",
    "Withdraw": "withdrawn from research",
    "FlagTampered": "an object differs from its anchor: withheld",
    "ReportRepair": "a bad copy was replaced by a healthy one",
    "RequestAccess": "research asked for access",
    "Approve": "access was approved",
    "Deny": "access was denied",
    "Revoke": "access was revoked",
    "LogRelease": "released to research",
    "LogOutcome": "a release ended",
    "LogRetrieval": "research told how its retrieval ended",
    "ReportTamper": "research received an object that differs from its anchor",
    "RequestErase": "erasure was requested",
    "CancelErase": "the erasure's request was cancelled",
    "ConfirmErase": "erasure was confirmed",
    "ErasureDone": "an organisation has erased it",
    "RegisterTrainingRun": "a training run was registered on it",
}
_REQUEST_IN = {"Approve": "id", "Deny": "id", "Revoke": "id", "LogRelease": "request"}  # which argument names it
_OF_BOTH = {"Reinstate": ("reinstatement", "reinstated"), "Resolve": ("lifting the flag", "resolved")}
_TONES = {"FlagTampered": Tone.DANGER, "ReportTamper": Tone.DANGER, "ReportConflict": Tone.ATTENTION}


class Trail:
    """What the ledger says of one study, all asked for at once."""

    def __init__(self, ledger: Ledger, study: bytes) -> None:
        """Raises LedgerAway."""
        standing = ledger.query("StandingOf", {"study": study})
        withdrawals = [row["instances"] for row in standing["withdrawn"]]
        self.erasure: str = standing["erased"]
        self.flagged = frozenset[bytes](row["instance"] for row in standing["flagged"])
        self.is_withdrawn = None in withdrawals  # all of it
        self.withdrawn = frozenset[bytes](instance for some in withdrawals for instance in some or ())
        self.anchors: Mapping[str, Row] = {
            row["manifestCid"]: row for row in all_rows(ledger, "AnchorsOfStudy", {"study": study})
        }
        self._rows = list(all_rows(ledger, "Audit", {"study": study}))
        named = {row["args"][_REQUEST_IN[row["function"]]] for row in self._rows if row["function"] in _REQUEST_IN}
        self._requests: Mapping[bytes, Row] = {id: ledger.query("GetRequest", {"id": id}) for id in named}

    def last(self, *functions: str) -> int | None:
        """When one of these functions was last called about the study, seconds of UTC; None: never."""
        return max((row["time"] for row in self._rows if row["function"] in functions), default=None)

    def releases(self, manifests: Collection[str] | None = None) -> tuple[Released, ...]:
        """What each request was given of the study, the latest first; only what names one of ``manifests``, unless
        that is None.
        """
        given: defaultdict[bytes, list[Row]] = defaultdict(list)
        for row in self._rows:
            if row["function"] == "LogRelease" and (manifests is None or {*manifests} & {*row["args"]["anchors"]}):
                given[row["args"]["request"]].append(row)
        found = (self._released(request, rows, manifests is None) for request, rows in given.items())
        return tuple(sorted(found, key=lambda released: -released.last))

    def events(self) -> list[Event]:
        """What happened, in the ledger's order."""
        return [self._event(row) for row in self._rows]

    def _released(self, request: bytes, rows: list[Row], is_study: bool) -> Released:
        asked, node = self._requests[request], rows[0]["args"]["node"]
        sent = [self._sent.get(row["result"]["release"]) for row in rows]
        return Released(
            organisation=node["organisation"],
            ae_title=node["aeTitle"],
            request=request.hex(),
            purposes=_purposes(asked),
            state=asked["state"],
            until=asked["until"],
            first=min(row["time"] for row in rows),
            last=max(row["time"] for row in rows),
            released=sum(row["args"]["count"] for row in rows if "renews" not in row["args"]),
            sent=None if None in sent else sum(each or 0 for each in sent),
            is_certain=is_study or any(map(self._is_whole, rows)),
        )

    def _is_whole(self, release: Row) -> bool:
        """Whether a release is of all that its anchors stand for."""
        args = release["args"]
        return bool(args["count"] == sum(self.anchors[cid]["count"] for cid in args["anchors"]))

    @cached_property
    def _sent(self) -> Mapping[bytes, int]:
        """Release → how many objects began to leave under it."""
        outcomes = (row["args"] for row in self._rows if row["function"] == "LogOutcome")
        return {args["release"]: args["sent"] for args in outcomes}

    def _event(self, row: Row) -> Event:
        function: str = row["function"]
        by = row["by"]
        what = _WHAT.get(function, function)
        if function in _OF_BOTH:
            half, whole = _OF_BOTH[function]
            what = whole if row["result"]["state"] == whole else f"{half}: one of two parties agreed"
        return Event(
            time=row["time"],
            what=what,
            who=f"{by['organisation']} ({by['role']}, {ASSURANCES[by['assurance']]})",
            detail="; ".join(self._details(function, row["args"])),
            position=row["sequence"],
            tone=_TONES.get(function, Tone.NEUTRAL),
        )

    def _details(self, function: str, args: Row) -> list[str]:
        match function:
            case "Anchor":
                return [counted(args["count"], "object"), f"manifest {args['manifestCid']}"]
            case "ConfirmStored":
                return [f"manifest {args['manifestCid']}"]
            case "Supersede":
                return [code_label(function, args["reason"])]
            case "Withdraw":
                instances = args.get("instances")
                what = "the whole study" if instances is None else counted(len(instances), "object")
                return [what, code_label(function, args["reason"])]
            case "RequestAccess":
                return [_node_of(args), _purposes_of(args)]
            case "Approve":
                return [_node_of(self._requests[args["id"]]), f"until {spoken(args['until'])}"]
            case "Deny" | "Revoke":
                return [_node_of(self._requests[args["id"]]), code_label(function, args["reason"])]
            case "LogRelease":
                return [_node_of(args), counted(args["count"], "object"), _purposes_of(self._requests[args["request"]])]
            case "LogOutcome":
                return [f"{args['sent']} sent, {args['withheld']} not"]
            case "LogRetrieval":
                return [code_label(function, args["outcome"])]
        return []


def _node_of(row: Row) -> str:
    return f"{row['node']['organisation']}, {row['node']['aeTitle']}"


def _purposes(request: Row) -> tuple[str, ...]:
    return tuple(f"{label(code)} ({code})" for code in request["duo"])


def _purposes_of(request: Row) -> str:
    return ", ".join(_purposes(request)) or "no purpose named"
