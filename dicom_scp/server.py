"""One listening port: who may associate, and which handler serves what (PS3.8 9.3.4, PS3.7 D.3)."""

import ipaddress
import logging
import socket
import threading
from functools import partial
from typing import Any

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, C_GET, C_MOVE, C_STORE
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.transport import AssociationServer, RequestHandler

from dicom_scp import status
from dicom_scp.association import DicomAssociation, Handler, application_entity
from dicom_scp.contexts import VERIFICATION, supported
from dicom_scp.dimse import response_to
from dicom_scp.pdu_socket import MAXIMUM_PDU, PduSocket
from dicom_scp.ports import Archive, Inbox, ListenerConfig, Peer
from dicom_scp.query import Finder, answer_extended
from dicom_scp.receive import Receiver
from dicom_scp.retrieve_loop import Retriever
from dicom_scp.route import Requestor
from orthanc_ledger.errors import ConfigError

LOGGER = logging.getLogger(__name__)

_WINDING_DOWN = 8  # connections of which the peer needs no longer know: rejected, released

# A-ASSOCIATE-RJ: result, source, reason (PS3.8 9.3.4)
Rejection = tuple[int, int, int]
_CALLED_AE_NOT_RECOGNIZED: Rejection = (1, 1, 7)
_CALLING_AE_NOT_RECOGNIZED: Rejection = (1, 1, 3)
_LOCAL_LIMIT_EXCEEDED: Rejection = (2, 3, 2)


class Listener:
    """A DICOM acceptor on one port, for the peers whose role that port serves.

    Several processes may listen on one port (SO_REUSEPORT): nothing is shared between listeners. Raises ConfigError for
    a peer's host that is no IP address, OSError from `start` when the port cannot be had.
    """

    def __init__(self, config: ListenerConfig, inbox: Inbox, archive: Archive) -> None:
        self._config = config
        served = {"research"} if config.serves == "research" else {"modality", "clinical"}
        self._peers = {peer.ae_title: (peer, _addresses(peer)) for peer in config.peers if peer.role in served}
        self._ae = application_entity(config.ae_title, config.network_timeout_s, config.dimse_timeout_s)
        self._ae.maximum_associations = 10 * config.max_associations  # they are counted here, with modalities' share
        self._receiver = Receiver(inbox, archive)
        retriever = Retriever(archive, config.peers, Requestor(self._ae))
        self._handlers: dict[type, Handler] = {
            C_ECHO: _echo,
            C_STORE: self._receiver.serve,
            C_FIND: Finder(archive, config.ae_title).serve,
            C_GET: retriever.serve_get,
            C_MOVE: retriever.serve_move,
        }
        self._lock = threading.Lock()
        self._known_addresses = frozenset().union(*(addresses for _, addresses in self._peers.values()))
        self._open: set[DicomAssociation] = set()
        self._admitted: set[DicomAssociation] = set()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Bind the port and accept associations in a thread of its own."""
        self._server = _Server(self, self._ae, (self._config.host, self._config.port), self._config.ae_title)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="listener", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port in use; the one the system chose when the configuration says 0."""
        if self._server is None:
            raise RuntimeError("the listener has not been started")
        return int(self._server.server_address[1])

    def shutdown(self, timeout_s: float = 10.0) -> None:
        """Stop accepting, end every association, and wait for each ``timeout_s`` at most."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join(timeout_s)
            self._thread = None
        for assoc in self.associations:
            assoc.pdu_socket.hang_up()
        for assoc in self.associations:
            assoc.join(timeout_s)

    @property
    def associations(self) -> list[DicomAssociation]:
        """The open associations, admitted or not."""
        with self._lock:
            return list(self._open)

    def accepts_connection(self, remote: str) -> bool:
        """Whether one more connection from an address may be opened.

        Those that are not associated (yet) are bounded for each address, and together for all addresses that no peer is
        bound to: whoever only connects can use up neither all threads nor the room of a modality's own address.
        """
        address, most = _address(remote), self._config.max_associations
        with self._lock:
            waiting = [_address(assoc.requestor.address) for assoc in self._open - self._admitted]
        if waiting.count(address) >= most // 2 + _WINDING_DOWN:
            return False
        strangers = sum(each not in self._known_addresses for each in waiting)
        return address in self._known_addresses or strangers < most + _WINDING_DOWN

    def associate(self, connection: socket.socket, local: Any, remote: Any) -> None:
        """Start an association on an accepted connection."""
        assoc = DicomAssociation(self._ae, MODE_ACCEPTOR, self._handlers, self._forget)
        assoc.name = f"association-{assoc.identity.hex()[:8]}"
        assoc.set_socket(PduSocket(assoc, client_socket=connection))
        assoc.acceptor.maximum_length = MAXIMUM_PDU
        assoc.acceptor.ae_title = self._config.ae_title
        assoc.acceptor.address_info = local
        assoc.acceptor.implementation_class_uid = self._ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self._ae.implementation_version_name
        assoc.requestor.address_info = remote
        assoc.dimse.open_sink = partial(self._receiver.open_sink, assoc)
        assoc.bind(evt.EVT_REQUESTED, self._negotiate)
        assoc.bind(evt.EVT_SOP_EXTENDED, answer_extended)
        with self._lock:
            self._open.add(assoc)
        assoc.start()

    def _forget(self, assoc: DicomAssociation) -> None:
        with self._lock:
            self._open.discard(assoc)
            self._admitted.discard(assoc)

    def _negotiate(self, event: evt.Event) -> None:
        """Admit or reject. Should this raise, no context is supported and no peer is set: nothing is served."""
        assoc = event.assoc
        assert isinstance(assoc, DicomAssociation)
        assert assoc.requestor.primitive is not None
        request = assoc.requestor.primitive
        rejection = self._admit(assoc, request.called_ae_title.strip(), request.calling_ae_title.strip())
        if rejection is None:
            assoc.acceptor.supported_contexts = supported(request.presentation_context_definition_list)
        else:
            LOGGER.warning("association from %s rejected: %s", assoc.requestor.address, rejection)
            assoc.acse.send_reject(*rejection)
            assoc.kill()

    def _admit(self, assoc: DicomAssociation, called: str, calling: str) -> Rejection | None:
        if called != self._config.ae_title:
            return _CALLED_AE_NOT_RECOGNIZED
        peer, addresses = self._peers.get(calling, (None, frozenset()))
        if peer is None or (addresses and _address(assoc.requestor.address) not in addresses):
            return _CALLING_AE_NOT_RECOGNIZED
        room = self._config.max_associations
        if self._config.serves == "clinical" and peer.role != "modality":
            room -= self._config.reserved_associations
        with self._lock:
            if len(self._admitted) >= room:
                return _LOCAL_LIMIT_EXCEEDED
            self._admitted.add(assoc)
        assoc.peer = peer
        return None


class _Connection(RequestHandler):
    server: "_Server"

    def handle(self) -> None:
        self.server.listener.associate(self.request, self.local, self.remote)


class _Server(AssociationServer):
    """pynetdicom's server on a port that several processes share."""

    request_queue_size = 128

    def __init__(self, listener: Listener, ae: ApplicationEntity, address: tuple[str, int], ae_title: str) -> None:
        self.listener = listener
        # pynetdicom insists on a context; each association is given its own by the listener.
        super().__init__(ae, address, ae_title, [build_context(VERIFICATION)], request_handler=_Connection)
        ae._servers.append(self)  # type: ignore[arg-type]  # shutdown() takes it out again

    def server_bind(self) -> None:
        if self.socket is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return self.listener.accepts_connection(client_address[0])


def _echo(assoc: DicomAssociation, request: C_ECHO, context: PresentationContext) -> None:
    assoc.dimse.send_msg(response_to(request, status.ECHO_SUCCESS), context.context_id or 0)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address to compare: IPv4 callers of an IPv6 socket by their IPv4 address."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _addresses(peer: Peer) -> frozenset[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        return frozenset(_address(host) for host in peer.hosts)
    except ValueError as error:
        raise ConfigError(f"hosts of peer {peer.ae_title}: {error}; give IP addresses") from error
