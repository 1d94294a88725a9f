"""The chaincode's packages: each organisation packs its own, the same input into the same bytes.

A package holds no code, only where its organisation's service is and the keys to call it; what the service runs is
what its organisation starts. `AND(owner, custodian)` is why that is enough: each checks the other's work.
"""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

from orthanc_ledger.consortium.topology import CHAINCODE, Organisation

_DIAL_TIMEOUT = "3s"


def package(organisation: Organisation, keys: Path) -> bytes:
    """An organisation's chaincode package (tar.gz); the same input gives the same bytes, and so the same id.

    ``keys``: the folder of its chaincode service's TLS keys.
    """
    connection = {
        "address": organisation.chaincode.address,
        "dial_timeout": _DIAL_TIMEOUT,
        "tls_required": True,
        "client_auth_required": True,
        "client_key": (keys / "client.key").read_text(),
        "client_cert": (keys / "client.crt").read_text(),
        "root_cert": (keys / "ca.crt").read_text(),
    }
    code = _tar_gz({"connection.json": json.dumps(connection).encode()})
    metadata = json.dumps({"type": "ccaas", "label": _label(organisation)}).encode()
    return _tar_gz({"metadata.json": metadata, "code.tar.gz": code})


def package_id(organisation: Organisation, packed: bytes) -> str:
    """The id by which peers and the service know a package: LABEL:SHA-256."""
    return f"{_label(organisation)}:{hashlib.sha256(packed).hexdigest()}"


def _label(organisation: Organisation) -> str:
    return f"{CHAINCODE}_{organisation.name}"


def _tar_gz(files: dict[str, bytes]) -> bytes:
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(tarred.getvalue(), mtime=0)
