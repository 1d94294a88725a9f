"""Who sent an object, and how, as far as Orthanc's hooks tell it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orthanc

from orthanc_ledger.arrival import ADDRESSED_AE, REST_USER, STOW
from orthanc_ledger.plugin.request import Request
from orthanc_ledger.plugin.uploads import is_stow
from orthanc_ledger.sender import DICOM, HTTP, HTTPS, Sender, ascii_of, uri


@dataclass(frozen=True)
class Here:
    """This Orthanc, as those call it who send. ``scheme``: http or https."""

    ae_title: str
    host: str
    dicom_port: int
    http_port: int
    scheme: str = HTTP

    @classmethod
    def of(cls, whole: Mapping[str, Any], host: str) -> "Here":
        """From Orthanc's whole configuration, with its own defaults."""
        return cls(
            ascii_of(whole.get("DicomAet", "ORTHANC")),
            ascii_of(host),
            whole.get("DicomPort", 4242),
            whole.get("HttpPort", 8042),
            HTTPS if whole.get("SslEnabled", False) else HTTP,
        )


def sender_of(instance: orthanc.DicomInstance, asked: Request | None, since_s: float, here: Here) -> Sender:
    """Who sent an object whose hooks run now. ``asked``: the HTTP request that this thread answers; ``since_s``: when
    the object was received, seconds since 1970.

    Of an object that Orthanc had before, its metadata tell of the first time; then only what does not come from them
    is told.
    """
    known = _metadata(instance, since_s)
    if instance.GetInstanceOrigin() == orthanc.InstanceOrigin.DICOM_PROTOCOL:
        calling_ae = instance.GetInstanceRemoteAet()
        address = known.get("RemoteIP", "") if known.get("RemoteAET") == calling_ae else ""
        called = uri(DICOM, here.host, here.dicom_port)
        return Sender(ADDRESSED_AE, ascii_of(calling_ae), here.ae_title, uri(DICOM, address), called)
    if asked is not None:
        return asked_by(asked, instance.GetInstanceOrigin(), here)
    return _user(known.get("HttpUsername", ""), known.get("RemoteIP", ""), here)


def asked_by(asked: Request, origin: int, here: Here) -> Sender:
    """Who sent what comes by a request. ``origin``: one of ``orthanc.InstanceOrigin``."""
    stow = origin == orthanc.InstanceOrigin.PLUGIN and is_stow(asked.method, asked.uri)
    name = STOW if stow else REST_USER
    return _user(asked.user or "", asked.address, here, name)


def _user(user: str, address: str, here: Here, origin: str = REST_USER) -> Sender:
    called = uri(here.scheme, here.host, here.http_port)
    return Sender(origin, "", "", uri(here.scheme, address, user=user), called)


def _metadata(instance: orthanc.DicomInstance, since_s: float) -> dict[str, str]:
    """Orthanc's metadata on who sent it; nothing when they are older than this arrival, or not there yet."""
    received = time.strftime("%Y%m%dT%H%M%S", time.gmtime(since_s))
    if _value(instance, "ReceptionDate") < received:
        return {}
    return {name: _value(instance, name) for name in ("RemoteAET", "RemoteIP", "HttpUsername")}


def _value(instance: orthanc.DicomInstance, name: str) -> str:
    return instance.GetInstanceMetadata(name) if instance.HasInstanceMetadata(name) else ""
