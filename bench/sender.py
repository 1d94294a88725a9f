"""The senders, the same for all peers: dcmtk's dcmsend, and one that opens an association for each image.

The second is our own, because a new storescu for each image costs more than most peers do: everything it sends is
encoded before the clock starts.
"""

import os
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import A_ASSOCIATE_RQ, A_RELEASE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    A_RELEASE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from bench.peers import MODALITY, BenchError, Peer, tool

SEND_S = 600.0
_ALONE_S = 6.0  # pynetdicom takes five associations a second, one after the other
_PDU_BYTES = 16_000  # every peer here takes at least 16,382
_BENCH_UID = "2.25.108310917862517013"
_SUCCESS = bytes.fromhex("0000 0009 0200 0000 0000")  # Status (0000,0900), US, 0x0000 in Implicit VR Little Endian
_STAMPED = """\
log4cplus.rootLogger = INFO, file
log4cplus.appender.file = log4cplus::FileAppender
log4cplus.appender.file.File = ${BENCH_LOG}
log4cplus.appender.file.ImmediateFlush = false
log4cplus.appender.file.layout = log4cplus::PatternLayout
log4cplus.appender.file.layout.ConversionPattern = %D{%s.%Q} %m%n
"""


@dataclass(frozen=True)
class Exchange:
    """Objects that went over, and when: seconds since the epoch, from asking for an association to the last answer."""

    count: int
    began: float
    ended: float

    @property
    def rate(self) -> float:
        """Objects a second."""
        return self.count / (self.ended - self.began)


@dataclass(frozen=True)
class StampedTool:
    """A run of one of dcmtk's tools that writes its log with the time of each line."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @classmethod
    def start(cls, log: Path, *words: object, nagle: bool = False) -> "StampedTool":
        """Start it; ``nagle``: leave Nagle's algorithm on, as dcmtk does when not told."""
        layout = log.with_suffix(".layout")
        layout.write_text(_STAMPED)
        environment = {**os.environ, "BENCH_LOG": str(log)}
        environment.pop("TCP_NODELAY", None)
        if not nagle:
            environment["TCP_NODELAY"] = "1"
        command = [tool(str(words[0])), "--log-config", str(layout), *map(str, words[1:])]
        return cls(subprocess.Popen(command, env=environment, cwd=log.parent), log)

    def lines(self) -> list[tuple[float, str]]:
        """Wait until it ends; what it logged, each line with its time. Raises BenchError when it takes too long."""
        try:
            self.process.wait(SEND_S)
        except subprocess.TimeoutExpired as error:
            self.process.kill()
            raise BenchError(f"{self.log.stem} takes longer than {SEND_S:.0f} s") from error
        return [_stamped(line) for line in self.log.read_text(errors="replace").splitlines()]


def _stamped(line: str) -> tuple[float, str]:
    """The time and the text of ``1795278438.634.400 Requesting Association``: seconds, milliseconds, microseconds."""
    stamp, _, text = line.partition(" ")
    seconds, milliseconds, microseconds = stamp.split(".")
    return int(seconds) + int(milliseconds) / 1e3 + int(microseconds) / 1e6, text


def send_together(peer: Peer, folders: Sequence[Path], logs: Path, nagle: bool = False) -> Exchange:
    """Send each folder over an association of its own, all at once. Raises BenchError unless all is acknowledged."""
    words = ("dcmsend", "-ma", "-aet", MODALITY, "-aec", peer.ae_title, "127.0.0.1", peer.port, "+sd")
    runs = [
        StampedTool.start(logs / f"dcmsend-{number}.log", *words, folder, nagle=nagle)
        for number, folder in enumerate(folders)
    ]
    lines = [line for run in runs for line in run.lines()]
    began = [time for time, text in lines if text == "Requesting Association"]
    answered = [time for time, text in lines if text == "Received C-STORE Response (Success)"]
    count = sum(len(os.listdir(folder)) for folder in folders)
    if len(answered) != count:
        raise BenchError(f"{peer.name} acknowledged {len(answered)} of {count} objects")
    return Exchange(count, min(began), max(answered))


def send_each_alone(peer: Peer, files: Sequence[Path]) -> Exchange:
    """Send each file over an association of its own, one after the other, with Nagle off, for some seconds at most.

    Raises BenchError when one is not acknowledged.
    """
    release = A_RELEASE_RQ()
    release.from_primitive(A_RELEASE())
    prepared = [(_request(file, peer.ae_title), _message(file)) for file in files]
    acknowledged, began = 0, time.time()
    for request, message in prepared:
        if time.time() - began > _ALONE_S:
            break
        with socket.create_connection(("127.0.0.1", peer.port), SEND_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(request)
            _receive(connection, peer)
            connection.sendall(message)
            if _SUCCESS not in _receive(connection, peer):
                raise BenchError(f"{peer.name} answered other than Success")
            connection.sendall(release.encode())
            _receive(connection, peer)
        acknowledged += 1
    return Exchange(acknowledged, began, time.time())


def _request(file: Path, called_ae: str) -> bytes:
    """An A-ASSOCIATE-RQ for the file's class and transfer syntax."""
    meta = dcmread(file, stop_before_pixels=True).file_meta
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16_384
    implementation.implementation_class_uid = _BENCH_UID
    associate = A_ASSOCIATE()
    associate.application_context_name = "1.2.840.10008.3.1.1.1"
    associate.calling_ae_title, associate.called_ae_title = MODALITY, called_ae
    context = build_context(meta.MediaStorageSOPClassUID, [meta.TransferSyntaxUID])
    context.context_id = 1
    associate.presentation_context_definition_list = [context]
    associate.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(associate)
    return pdu.encode()


def _message(file: Path) -> bytes:
    """The P-DATA-TF PDUs of a C-STORE-RQ with the file's data set."""
    with file.open("rb") as stream:
        header = dcmread(stream, stop_before_pixels=True)
        stream.seek(128 + 4 + 12 + header.file_meta.FileMetaInformationGroupLength)
        store = C_STORE()
        store.MessageID, store.Priority = 1, 2
        store.AffectedSOPClassUID, store.AffectedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        store.DataSet = BytesIO(stream.read())
    command = C_STORE_RQ()
    command.primitive_to_message(store)
    encoded = bytearray()
    for primitive in command.encode_msg(1, _PDU_BYTES):
        pdu = P_DATA_TF()
        pdu.from_primitive(primitive)
        encoded += pdu.encode()
    return bytes(encoded)


def _receive(connection: socket.socket, peer: Peer) -> bytes:
    """The next PDU: PS3.8 9.3.1, type and reserved byte, then the length of the rest."""
    head = _exactly(connection, 6, peer)
    return head + _exactly(connection, int.from_bytes(head[2:], "big"), peer)


def _exactly(connection: socket.socket, count: int, peer: Peer) -> bytes:
    content = b""
    while len(content) < count:
        part = connection.recv(count - len(content))
        if not part:
            raise BenchError(f"{peer.name} closed the connection")
        content += part
    return content
