"""What people are asked to agree to: as rows that lists print, and in the words that are read before signing.

Where a `node` is given, what it holds is named by its UIDs; None: a copy of the ledger is read, which has tokens only.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydicom._uid_dict import UID_dictionary

from orthanc_ledger import tokens
from orthanc_ledger.assemble import Node
from orthanc_ledger.duo import label
from orthanc_ledger.errors import NotHeld
from orthanc_ledger.index import Instance
from orthanc_ledger.ledger import Ledger, all_rows
from orthanc_ledger.words import counted, instant, moment

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
    "missing",
)
NOT_HELD = "not held here"
_TOKEN = re.compile("[0-9A-Fa-f]{32}")
_TOLD = {"reason": "reason", "manifestCid": "manifest", "oldManifest": "old", "newManifest": "new"}


def row_of(request: Mapping[str, Any], node: Node | None) -> dict[str, Any]:
    """A request of the query GetRequest as `requests` lists it."""
    studies = request.get("studies")
    uids = [] if node is None else [node.index.study_of_token(study) for study in studies or ()]
    approved_by = sorted(request["approvals"])
    return {
        "id": request["id"],
        "state": request["state"],
        "organisation": request["node"]["organisation"],
        "ae_title": request["node"]["aeTitle"],
        "studies": None if studies is None else len(studies),
        "study_tokens": studies,
        "study_instance_uids": uids,
        "dataset": dataset_of(request),
        "classes": _classes(request["sopClasses"]),
        "sop_classes": request["sopClasses"],
        "future": request["future"],
        "release": request["release"],
        "duo": request["duo"],
        "purposes": _purposes(request["duo"]),
        "days": request["days"],
        "public_key_digest": request.get("publicKeyDigest"),
        "until": moment(request["until"]) if request["until"] else None,
        "approved_by": approved_by,
        "needs": request["needs"],
        "missing": [role for role in request["needs"] if role not in approved_by and request["state"] == "open"],
    }


def request_in_words(ledger: Ledger, request: Mapping[str, Any], node: Node | None) -> str:
    """What an approval of the request would give, a line each."""
    facts = request_facts(ledger, request)
    facts[""] = [study_in_words(node, study) for study in request.get("studies", [])]
    return _lines({name: facts[name] for name in ("to", "studies", "", *facts)})


def request_facts(ledger: Ledger, request: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """What an approval of the request would give, but for which studies."""
    later = "also what is anchored later" if request["future"] else "only what is anchored when the last approval comes"
    digest = request.get("publicKeyDigest")
    keys = {"keys": f"given to whoever has the private key of {digest.hex()}"} if digest else {}
    return {
        "to": f"{request['node']['organisation']}, its node {request['node']['aeTitle']}",
        "studies": _studies(ledger, request),
        "classes": _classes(request["sopClasses"]),
        "for": ", ".join(_purposes(request["duo"])) or "no purpose named",
        "how": f"{request['release']}, {counted(request['days'], 'day')} at most, {later}",
        **keys,
    }


def description_digest(salt: bytes, text: str) -> bytes:
    """What the ledger has of a request's description."""
    return hashlib.sha256(salt + text.encode()).digest()


def policy_changes(policy: Mapping[str, Any], proposed: Mapping[str, Any]) -> list[str]:
    """What a policy differs in from the one in force, a field each."""
    old, new = dict(_fields(policy)), dict(_fields(proposed))
    changed = sorted(name for name in old | new if old.get(name) != new.get(name))
    return [f"{name}: {old.get(name, 'nothing')} → {new.get(name, 'nothing')}" for name in changed]


def object_in_words(node: Node | None, record: Mapping[str, Any]) -> str:
    """What a withdrawal, a flag or a supersession is about: of which study, which objects, why, on which manifest."""
    study = record["study"]
    objects = [record["instance"]] if "instance" in record else record.get("instances")
    return _lines(
        {
            "study": study_in_words(node, study),
            "object": instances_in_words(node, study, objects),
            **{word: record[name] for name, word in _TOLD.items() if name in record},
            "by": f"{record['by']['organisation']}, {moment(record['time'])}",
        }
    )


def study_in_words(node: Node | None, study: bytes) -> str:
    """A study's token and UID."""
    return study.hex() if node is None else f"{study.hex()} {node.index.study_of_token(study) or NOT_HELD}"


def study_token(node: Callable[[], Node], text: str) -> bytes:
    """A study's token, given as it is or by the study's UID, which its node knows. Raises NotHeld."""
    if _TOKEN.fullmatch(text):  # no UID: that has points (PS3.5 9.1)
        return bytes.fromhex(text)
    keys = node().keyring.study(text)
    if keys is None:
        raise NotHeld(f"study {text}: not held here; `orthanc-ledger studies` lists what is")
    return keys.token


def audit_question(
    node: Callable[[], Node], study: str | None, organisation: str | None, start: str | None, end: str | None
) -> dict[str, Any]:
    """Arguments of the query Audit for what was typed: a study as `study_token` takes it, times as `instant` does; what
    is empty plays no part. Raises NotHeld, ConfigError.
    """
    question: dict[str, Any] = {}
    if study:
        question["study"] = study_token(node, study)
    if organisation:
        question["organisation"] = organisation
    for name, text in (("from", start), ("until", end)):
        if text:
            question[name] = instant(text)
    return question


def instances_in_words(node: Node | None, study: bytes, instances: Sequence[bytes] | None) -> list[str]:
    """Tokens and UIDs of objects of a study; None: all of it."""
    if instances is None:
        return ["all"]
    if node is None:
        return [instance.hex() for instance in instances]
    held = held_of(node, study)
    uids = ((token, held[token].sop_uid if token in held else NOT_HELD) for token in instances)
    return [f"{token.hex()} {uid}" for token, uid in uids]


def held_of(node: Node, study: bytes) -> dict[bytes, Instance]:
    """The objects of a study that the node holds, by instance token."""
    uid = node.index.study_of_token(study)
    keys = None if uid is None else node.keyring.study(uid)
    if uid is None or keys is None:
        return {}
    return {tokens.instance_token(keys.k_study, held.sop_uid): held for held in node.index.select(studies=[uid])}


def last_record(ledger: Ledger, key: str) -> Any:
    """What stands under a key of the ledger's state (docs/contract.md), or None."""
    history = list(all_rows(ledger, "HistoryOf", {"key": key}))
    return history[-1]["value"] if history else None


def dataset_of(request: Mapping[str, Any]) -> str | None:
    """The dataset that a request names, as `--dataset` takes it; None when it names studies."""
    return f"{request['dataset'].hex()}:{request['version']}" if "dataset" in request else None


def _studies(ledger: Ledger, request: Mapping[str, Any]) -> str:
    if "studies" in request:
        return str(len(request["studies"]))
    named = (request["dataset"], request["version"])
    count = next(row["count"] for row in all_rows(ledger, "Datasets", {}) if (row["id"], row["version"]) == named)
    return f"{count}, dataset {dataset_of(request)}"


def _fields(policy: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in policy.items():
        if isinstance(value, Mapping):
            yield from ((f"{name} {key}", _word(part)) for key, part in value.items())
        else:
            yield name, _word(value)


def _word(value: Any) -> str:
    if isinstance(value, bytes):
        return f"SHA-256 {hashlib.sha256(value).hexdigest()}"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _lines(lines: Mapping[str, str | list[str]]) -> str:
    """A line each, of a list as many as it has."""
    return "\n".join(
        f"{name if n == 0 else '':<8} {text}"
        for name, value in lines.items()
        for n, text in enumerate([value] if isinstance(value, str) else value)
    )


def _purposes(codes: list[str]) -> list[str]:
    return [f"{code} {label(code)}" for code in codes]


def _classes(uids: list[str]) -> str:
    if uids == IMAGES:
        return "all images"
    return ", ".join(UID_dictionary[uid][0] if uid in UID_dictionary else uid for uid in uids)
