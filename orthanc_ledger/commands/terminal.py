"""What commands share with the terminal: a node from --config, a signed call as --as, tables or JSON to print."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from orthanc_ledger import ledger as backends
from orthanc_ledger.assemble import Node
from orthanc_ledger.config import Config, Party, load, load_party
from orthanc_ledger.errors import ConfigError, ContractError
from orthanc_ledger.ledger import Committed, Ledger, OpenLedger, Value
from orthanc_ledger.ledger.identity import Identity, is_encrypted, load_identity
from orthanc_ledger.ledger.key_holders import holder, keys_under
from orthanc_ledger.ledger.offline import OfflineLedger
from orthanc_ledger.node_key import read_passphrase

_WHAT_TO_DO = {
    "NOT_FOUND": "`requests`, `nodes`, `pending` and `erase list` show what is there",
    "NOT_PERMITTED": "another organisation has to sign this, named with --as or on its own machine (docs/parties.md)",
    "WRONG_STATE": "`requests`, `nodes`, `standing` and `erase list` show the states",
    "EXPIRED": "its time has run out: a new request is needed",
    "CONFLICT": "other values stand there already; `audit` shows them",
    "INVALID": "docs/contract.md says what is permitted",
    "SKEW": "set this machine's clock",
}
_COPY = "embedded"  # scheme of a copy, too
_SIGNED_FILE = "--out FILE, then run `orthanc-ledger submit FILE` here"
_OWN_PEER = "--ledger fabric:CONNECTION.yaml, at their own peer"
_IDENTITY_PASSPHRASE_FILE = "ORTHANC_LEDGER_IDENTITY_PASSPHRASE_FILE"
_NEW_IDENTITY = "issue a new identity and sign with that"


def open_node(args: argparse.Namespace) -> Node:
    """The node that --config names. Raises ConfigError."""
    return Node(load(args.config))


def add_json(parser: argparse._ActionsContainer) -> None:
    """--json, for every command that prints."""
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")


def add_ledger(parser: argparse.ArgumentParser) -> None:
    """--ledger, for every command that can do without a node."""
    parser.add_argument(
        "--ledger",
        type=_url,
        default=argparse.SUPPRESS,  # so that what stands before an ACTION is not forgotten behind it
        metavar="LEDGER",
        help="a copy of the ledger, from `ledger copy`, or fabric:CONNECTION.yaml: no node is needed then",
    )
    parser.set_defaults(takes_ledger=True)


def add_party(parser: argparse.ArgumentParser) -> None:
    """--config, for the commands of an organisation that runs no node (`open_party`)."""
    parser.add_argument(
        "--config",
        type=Path,
        default=argparse.SUPPRESS,  # the one before COMMAND counts, too
        metavar="FILE",
        help="this organisation's configuration; config/party.yaml explains it",
    )


def open_party(args: argparse.Namespace) -> tuple[Party, OpenLedger]:
    """The party that --config names, and the ledger as its identity sees it.

    Raises ConfigError, also when the identity is another organisation's; LedgerAway.
    """
    party = load_party(args.config)
    identity = load_identity(party.identity)
    ledger = backends.open_ledger(party.ledger, identity)
    try:
        organisation = holder(identity.certificate, ledger.authorities())
        if organisation != party.organisation:
            raise ConfigError(
                f"{args.config}: identity {party.identity}: expected one of {party.organisation}, it is of "
                f"{organisation or 'no organisation on this ledger'}"
            )
    except BaseException:
        ledger.close()
        raise
    return party, ledger


def add_signer(parser: argparse.ArgumentParser, default: str) -> None:
    """--as alone, for a command that signs no transaction (`signer`)."""
    parser.set_defaults(usual_signer=default)
    parser.add_argument(
        "--as",
        dest="identity",
        metavar="WHO",
        help="who signs: owner, custodian, research (their person, where its keys are here) or an identity's folder "
        f"(default: {default}, or the machine's own organisation where its keys are all there are)",
    )


def add_identity(parser: argparse.ArgumentParser, default: str) -> None:
    """--as, --out and --ledger, for every command that signs a transaction (`open_ledger`, `submit`, `tell`)."""
    add_signer(parser, default)
    parser.add_argument(
        "--out",
        dest="signed_file",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="FILE",
        help="only sign, into FILE: `submit FILE` on the ledger's machine makes it count",
    )
    add_ledger(parser)


def ledger_file(args: argparse.Namespace) -> Path:
    """The embedded ledger's file: the copy that --ledger names, or the configuration's. Raises ConfigError."""
    scheme, _, path = _ledger_url(args).partition(":")
    if scheme != _COPY:
        raise ConfigError(f"this works on an embedded ledger's file; this ledger is {scheme}:, its peers keep it")
    return Path(path)


def open_records(args: argparse.Namespace) -> OpenLedger:
    """The ledger to read: the one that --ledger names, or the configuration's. Raises ConfigError, LedgerAway."""
    return backends.open_ledger(_ledger_url(args))


def signer(args: argparse.Namespace) -> Identity:
    """The --as identity.

    Raises ConfigError when its keys are not here, no organisation of the ledger issued it, or it is of another
    organisation than the configuration's: one machine, one organisation's keys, unless it is a trial (`all_roles`).
    """
    folder, authorities, config = _identity_folder(args), _authorities(args), _configuration(args)
    identity = load_identity(folder, identity_passphrase(folder) if is_encrypted(folder) else None)
    organisation = holder(identity.certificate, authorities)
    if organisation is None:
        raise ConfigError(f"--as {folder}: no organisation on this ledger issued this identity's certificate")
    if config is not None and not config.all_roles and organisation != config.organisation:
        embedded = config.ledger.startswith(f"{_COPY}:")
        raise ConfigError(
            f"--as {folder}: an identity of {organisation}, but this machine is {config.organisation}'s: sign on "
            f"theirs with {_SIGNED_FILE if embedded else _OWN_PEER} (docs/parties.md)"
        )
    return identity


def identity_passphrase(folder: Path, new: bool = False) -> bytes:
    """What a person's key lies under: from the file that the environment names, else typed. Raises ConfigError."""
    return read_passphrase(_IDENTITY_PASSPHRASE_FILE, new, f"passphrase of {folder}")


def node_here(args: argparse.Namespace) -> Node | None:
    """This machine's node; None where --ledger names the ledger. Raises ConfigError."""
    return None if _named(args) is not None else open_node(args)


def open_ledger(args: argparse.Namespace) -> Ledger:
    """The ledger as the --as identity; with --out, one that signs into that file.

    Raises ConfigError as ``signer``, and when --ledger names a copy without --out.
    """
    identity, out = signer(args), _out(args)
    if out is not None:
        return OfflineLedger(ledger_file(args), identity, out)
    if (_named(args) or "").startswith(f"{_COPY}:"):
        raise ConfigError("--ledger FILE needs --out FILE: what is appended to a copy is not on the ledger")
    return backends.open_ledger(_ledger_url(args), identity)


def submit(ledger: Ledger, function: str, args: Mapping[str, Value], nonce: bytes | None = None) -> Committed:
    """Submit a call that a person asked for. Raises ConfigError, with what to do, when the contract refuses it."""
    try:
        return ledger.submit(function, args, nonce)
    except ContractError as error:
        older = "; or this copy is too old: take a new one" if isinstance(ledger, OfflineLedger) else ""
        raise refusal(function, error, older) from error


def refusal(function: str, error: ContractError, more: str = "") -> ConfigError:
    """What the contract refused, and what to do."""
    what_to_do = _NEW_IDENTITY if error.field == "certificate" else _WHAT_TO_DO[error.code]
    return ConfigError(f"the ledger refused {function}: {error}; {what_to_do}{more}")


def organisation_of(args: argparse.Namespace, certificate: bytes) -> str | None:
    """MSP ID of the organisation on the ledger that issued a certificate (DER); None: no organisation there did."""
    return holder(certificate, _authorities(args))


def keys_of_others(args: argparse.Namespace, config: Config) -> list[str]:
    """Private keys of other organisations that lie here although this is no trial, a sentence each.

    Looked for in `organisations/` beside the configuration and in the node's identity. Raises LedgerAway.
    """
    if config.all_roles:
        return []
    authorities = _authorities(args)
    places = (args.config.resolve().parent / "organisations", config.identity)
    found = dict(key for place in places for key in keys_under(place, authorities))
    return [
        f"{path}: a private key of {organisation} on a machine of {config.organisation}: whoever is in here signs for "
        "both; have it made anew on theirs, and this certificate revoked"
        for path, organisation in sorted(found.items())
        if organisation != config.organisation
    ]


def show(rows: Iterable[Mapping[str, Any]], as_json: bool, columns: Sequence[str]) -> None:
    """Print rows as JSON lines (all keys, bytes as hex) or as a table of the named columns."""
    rows = list(rows)
    if as_json:
        for row in rows:
            print(json.dumps(row, default=_plain, ensure_ascii=False))
        return
    table = [list(columns), *([_text(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[n]) for line in table) for n in range(len(columns))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def tell(args: argparse.Namespace, row: Mapping[str, Any] | None, sentence: str) -> None:
    """Print what a command did: as one JSON object, or as a sentence. With --out all it did is to sign."""
    out = _out(args)
    if out is not None:
        row = {**(row or {}), "state": "signed", "position": None, "file": out}
        sentence = f"{out}: signed; it counts once `orthanc-ledger submit` has brought it to the ledger, within 7 days"
    if args.json:
        show([row or {}], True, ())
    else:
        print(sentence)


def hex_bytes(text: str) -> bytes:
    """An id given as hex. Raises ConfigError."""
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise ConfigError(f"{text!r}: expected an id of hexadecimal digits, as the lists print it") from error


def _url(text: str) -> str:
    """What --ledger names, as the configuration would."""
    return text if text.startswith("fabric:") else f"{_COPY}:{text}"


def _named(args: argparse.Namespace) -> str | None:
    return getattr(args, "ledger", None)


def _out(args: argparse.Namespace) -> Path | None:
    return getattr(args, "signed_file", None)


def _ledger_url(args: argparse.Namespace) -> str:
    named = _named(args)
    if named is not None:
        return named
    if not args.config.exists():
        instead = "without a node name it with --ledger" if "takes_ledger" in args else "name it with --config"
        raise ConfigError(f"{args.config}: no node's configuration here; {instead}")
    return load(args.config).ledger


def _authorities(args: argparse.Namespace) -> Mapping[str, bytes]:
    with closing(open_records(args)) as ledger:
        return ledger.authorities()


def _configuration(args: argparse.Namespace) -> Config | None:
    """This machine's configuration; None where the ledger that --ledger names is all there is."""
    return None if _named(args) is not None and not args.config.exists() else load(args.config)


def _identity_folder(args: argparse.Namespace) -> Path:
    """A person's folder by its role here, by its organisation's folder, or as it is."""
    who = args.identity or args.usual_signer
    folder = _person(args, who)
    if folder is None and args.identity is None and (role := _own_role(args)):
        folder = _person(args, role)
    if folder is None:
        asked = (
            f"--as {who}: no such identity here" if args.identity else f"no key of {who} here: name who signs with --as"
        )
        raise ConfigError(
            f"{asked}; expected owner, custodian, research, or the folder of an "
            "organisation (`identity create`) or of a person's identity in it"
        )
    return folder


def _person(args: argparse.Namespace, who: str) -> Path | None:
    person = Path("identities") / "person"
    ours = args.config.resolve().parent / "organisations" / who
    folders = (ours / person, Path(who) / person, Path(who))
    return next((folder for folder in folders if (folder / "signcerts").is_dir()), None)


def _own_role(args: argparse.Namespace) -> str | None:
    """The role of this machine's organisation; None where no configuration names one."""
    config = _configuration(args)
    if config is None:
        return None
    organisations: Mapping[str, str] = open_records(args).query("GetPolicy", {})["organisations"]
    return organisations.get(config.organisation)


def _plain(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(_text(item) for item in value)
    return "" if value is None else value.hex() if isinstance(value, bytes) else str(value)
