"""Who sent an object that Orthanc took in, in the words of the arrival record (docs/manifest.md)."""

from dataclasses import dataclass
from urllib.parse import quote

from orthanc_ledger.part10 import Head
from orthanc_ledger.spool import ArrivalHead

DICOM, HTTP, HTTPS = "dicom", "http", "https"

_NO_ASSOCIATION = bytes(16)


@dataclass(frozen=True)
class Sender:
    """AE titles are empty where there is none, URIs without host or user where they are not known."""

    origin: str
    calling_ae: str
    called_ae: str
    peer: str
    called_address: str

    def arrival(self, head: Head) -> ArrivalHead:
        """What the spool is told of an object."""
        found = head.identifiers
        return ArrivalHead(
            calling_ae=self.calling_ae,
            called_ae=self.called_ae,
            peer_address=self.peer,
            called_address=self.called_address,
            association=_NO_ASSOCIATION,
            sop_class=found.sop_class_uid if found else "",
            sop_instance=found.sop_instance_uid if found else "",
            transfer_syntax=head.transfer_syntax,
            origin=self.origin,
        )


def uri(scheme: str, address: str, port: int | None = None, user: str = "") -> str:
    """A URI (RFC 3986 3.2) with what of user, address and port is known."""
    named = f"{quote(user, safe='')}@" if user else ""
    host = f"[{address}]" if ":" in address else address
    return f"{scheme}://{named}{host}" + (f":{port}" if port else "")


def ascii_of(text: str) -> str:
    """An AE title or host as file meta can hold it."""
    return text.encode("ascii", "replace").decode()
