"""Strict schemas of arguments: every name known, every value of the one right form."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from orthanc_ledger.errors import ContractError
from orthanc_ledger.ledger.contract.call import Value

Check = Callable[[Value], bool]

MAX_COUNT = 100_000
MAX_VERSION = 1 << 31
MAX_PROOF = 17  # the longest path in a tree of MAX_COUNT leaves
MAX_STUDIES = 256
MAX_SOP_CLASSES = 256
MAX_ANCHORS = 1024
MAX_INSTANCES = 1024
MAX_RELEASES = 1024
MAX_DAYS = 3650
MAX_TIME = 1 << 40
MAX_ROWS = 50  # of the largest there are, they stay below the 100 MiB of Fabric's messages

# CIDv1, dag-cbor, sha2-256, 32 bytes, base32: the four bytes 01 71 12 20 and the two unused bits at the end are fixed.
_MANIFEST_CID = re.compile(r"bafyrei[a-h][a-z2-7]{50}[aeimquy4]")
_MSP_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")
_AE_TITLE = re.compile(r"(?! )[ -\[\]-~]{1,16}(?<! )")  # PS3.5 6.2 AE: no backslash, spaces at the ends mean nothing
_UID = re.compile(r"(?=.{1,64}\Z)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")  # PS3.5 9.1
_KEY = re.compile(r"[!-~]{1,400}")
_SERIAL = re.compile(r"[1-9a-f][0-9a-f]{0,39}")  # RFC 5280 4.1.2.2: positive, at most 20 octets
_TAG = re.compile(r"\([0-9A-F]{4},[0-9A-F]{4}\)")


@dataclass(frozen=True)
class Argument:
    """The form of one argument."""

    check: Check
    required: bool = True


Schema = Mapping[str, Argument]


def check_arguments(schema: Schema, args: Mapping[str, Value]) -> None:
    """Raises ContractError INVALID with the name of the first argument that is unknown (in the order of dag-cbor, in
    which they travel), or else missing or malformed (in the schema's).
    """
    for name in sorted(args, key=lambda name: (len(name.encode()), name.encode())):
        if name not in schema:
            raise ContractError("INVALID", name, "unknown argument")
    for name, argument in schema.items():
        if name not in args:
            if argument.required:
                raise ContractError("INVALID", name, "missing argument")
        elif not argument.check(args[name]):
            raise ContractError("INVALID", name, "wrong type, length, range or code")


def arguments(**checks: Check | Argument) -> Schema:
    """A schema: required arguments as bare checks."""
    return {
        name.rstrip("_"): check if isinstance(check, Argument) else Argument(check) for name, check in checks.items()
    }


def optional(check: Check) -> Argument:
    return Argument(check, required=False)


def octets(length: int) -> Check:
    return lambda value: type(value) is bytes and len(value) == length


def integer(least: int, most: int) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def code(known: Collection[str]) -> Check:
    return lambda value: type(value) is str and value in known


def unique(check: Check, least: int, most: int) -> Check:
    """A list of different values of one form."""

    def holds(value: Value) -> bool:
        if type(value) is not list or not least <= len(value) <= most:
            return False
        return all(check(item) for item in value) and len(set(value)) == len(value)

    return holds


def boolean(value: Value) -> bool:
    return type(value) is bool


def manifest_cid(value: Value) -> bool:
    return type(value) is str and _MANIFEST_CID.fullmatch(value) is not None


def ae_title(value: Value) -> bool:
    return type(value) is str and _AE_TITLE.fullmatch(value) is not None


def msp_id(value: Value) -> bool:
    return type(value) is str and _MSP_ID.fullmatch(value) is not None


def sop_class(value: Value) -> bool:
    return type(value) is str and _UID.fullmatch(value) is not None


def tag_or_frame(value: Value) -> bool:
    """A tag as (GGGG,EEEE), or a frame's number from 0."""
    return _TAG.fullmatch(value) is not None if type(value) is str else count_from(0)(value)


def state_key(value: Value) -> bool:
    return type(value) is str and _KEY.fullmatch(value) is not None


def node(value: Value) -> bool:
    """A node's id: {organisation, aeTitle}."""
    if type(value) is not dict or set(value) != {"organisation", "aeTitle"}:
        return False
    return msp_id(value["organisation"]) and ae_title(value["aeTitle"])


def serial(value: Value) -> bool:
    """A certificate's serial number, as a caller's is given."""
    return type(value) is str and _SERIAL.fullmatch(value) is not None


def proof(value: Value) -> bool:
    """A study token's inclusion in a dataset: {index, path}, the path as RFC 6962 2.1.1."""
    if type(value) is not dict or set(value) != {"index", "path"} or type(value["path"]) is not list:
        return False
    path = value["path"]
    return integer(0, MAX_COUNT - 1)(value["index"]) and len(path) <= MAX_PROOF and all(digest(node) for node in path)


def count_from(least: int) -> Check:
    return integer(least, MAX_COUNT)


digest = octets(32)
record_id = octets(32)
study_token = octets(16)
dataset_id = octets(16)
instance_token = octets(32)
time = integer(0, MAX_TIME)
count = count_from(1)
version = integer(1, MAX_VERSION)

sequence = integer(0, (1 << 63) - 1)

PAGE: dict[str, Argument] = {"offset": optional(integer(0, 1 << 53)), "limit": optional(integer(1, MAX_ROWS))}
"""Arguments of every query that gives a list: skip `offset` items, give `limit` at most (MAX_ROWS, when left out)."""
