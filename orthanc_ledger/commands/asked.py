"""What a request asks for: as the row that `requests` lists, and in the words that its approver reads."""

from collections.abc import Mapping
from typing import Any

from pydicom._uid_dict import UID_dictionary

from orthanc_ledger.commands.terminal import moment
from orthanc_ledger.duo import label
from orthanc_ledger.ledger import Ledger

IMAGES = sorted(uid for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class" and "Image Storage" in entry[0])
"""SOP classes a request asks for unless it names its own: every image storage class (PS3.4 B.5)."""

COLUMNS = (
    "id",
    "state",
    "organisation",
    "ae_title",
    "studies",
    "dataset",
    "classes",
    "future",
    "release",
    "purposes",
    "days",
    "until",
    "approved_by",
    "needs",
)


def row_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request of the query GetRequest as `requests` lists it."""
    return {
        "id": request["id"],
        "state": request["state"],
        "organisation": request["node"]["organisation"],
        "ae_title": request["node"]["aeTitle"],
        "studies": len(request["studies"]) if "studies" in request else None,
        "dataset": dataset_of(request),
        "classes": _classes(request["sopClasses"]),
        "sop_classes": request["sopClasses"],
        "future": request["future"],
        "release": request["release"],
        "duo": request["duo"],
        "purposes": _purposes(request["duo"]),
        "days": request["days"],
        "until": moment(request["until"]) if request["until"] else None,
        "approved_by": sorted(request["approvals"]),
        "needs": request["needs"],
    }


def in_words(ledger: Ledger, request: Mapping[str, Any]) -> str:
    """What an approval of the request would give, a line each."""
    later = "also what is anchored later" if request["future"] else "only what is anchored when the last approval comes"
    lines = {
        "to": f"{request['node']['organisation']}, its node {request['node']['aeTitle']}",
        "studies": _studies(ledger, request),
        "classes": _classes(request["sopClasses"]),
        "for": ", ".join(_purposes(request["duo"])) or "no purpose named",
        "how": f"{request['release']}, {request['days']} days at most, {later}",
    }
    return "\n".join(f"{name:<8} {text}" for name, text in lines.items())


def dataset_of(request: Mapping[str, Any]) -> str | None:
    """The dataset that a request names, as `--dataset` takes it; None when it names studies."""
    return f"{request['dataset'].hex()}:{request['version']}" if "dataset" in request else None


def _studies(ledger: Ledger, request: Mapping[str, Any]) -> str:
    if "studies" in request:
        return str(len(request["studies"]))
    named = (request["dataset"], request["version"])
    count = next(row["count"] for row in ledger.query("Datasets", {}) if (row["id"], row["version"]) == named)
    return f"{count}, dataset {dataset_of(request)}"


def _purposes(codes: list[str]) -> list[str]:
    return [f"{code} {label(code)}" for code in codes]


def _classes(uids: list[str]) -> str:
    if uids == IMAGES:
        return "all images"
    return ", ".join(UID_dictionary[uid][0] if uid in UID_dictionary else uid for uid in uids)
