"""How each server is told what it is: its environment, over the one `core.yaml` or `orderer.yaml`.

The same on this machine and in a container; only the folders (`Places`) and the hosts of the topology differ.
"""

from dataclasses import dataclass

from orthanc_ledger.consortium.topology import Orderer, Organisation, Peer


@dataclass(frozen=True)
class Places:
    """Folders as a server sees them: settings, cryptogen's output, what servers keep; and the address to listen on."""

    config: str
    crypto: str
    data: str
    listen: str

    def orderer(self, orderer: Orderer) -> str:
        """The folder of an orderer's MSP and TLS keys."""
        return f"{self.crypto}/ordererOrganizations/{orderer.domain}/orderers/{orderer.name}"

    def peer(self, organisation: Organisation, peer: Peer) -> str:
        """The folder of a peer's MSP and TLS keys."""
        return f"{self.crypto}/peerOrganizations/{organisation.name}/peers/{peer.name}"

    def chaincode(self, organisation: Organisation) -> str:
        """The folder of a chaincode service's TLS keys."""
        return f"{self.crypto}/chaincode/{organisation.name}"


def orderer_environment(orderer: Orderer, places: Places) -> dict[str, str]:
    """Of `orderer`. Others reach it by TLS alone; its administration asks for a certificate of its own organisation."""
    keys, data = places.orderer(orderer), f"{places.data}/{orderer.name}"
    certificate, key, authority = f"{keys}/tls/server.crt", f"{keys}/tls/server.key", f"{keys}/tls/ca.crt"
    return {
        "FABRIC_CFG_PATH": places.config,
        "ORDERER_GENERAL_LISTENADDRESS": places.listen,
        "ORDERER_GENERAL_LISTENPORT": str(orderer.port),
        "ORDERER_GENERAL_LOCALMSPID": orderer.msp_id,
        "ORDERER_GENERAL_LOCALMSPDIR": f"{keys}/msp",
        "ORDERER_GENERAL_TLS_CERTIFICATE": certificate,
        "ORDERER_GENERAL_TLS_PRIVATEKEY": key,
        "ORDERER_GENERAL_TLS_ROOTCAS": f"[{authority}]",
        "ORDERER_GENERAL_CLUSTER_CLIENTCERTIFICATE": certificate,
        "ORDERER_GENERAL_CLUSTER_CLIENTPRIVATEKEY": key,
        "ORDERER_FILELEDGER_LOCATION": f"{data}/ledger",
        "ORDERER_CONSENSUS_WALDIR": f"{data}/wal",
        "ORDERER_CONSENSUS_SNAPDIR": f"{data}/snap",
        "ORDERER_OPERATIONS_LISTENADDRESS": f"{places.listen}:{orderer.operations_port}",
        "ORDERER_ADMIN_LISTENADDRESS": f"{places.listen}:{orderer.admin_port}",
        "ORDERER_ADMIN_TLS_CERTIFICATE": certificate,
        "ORDERER_ADMIN_TLS_PRIVATEKEY": key,
        "ORDERER_ADMIN_TLS_CLIENTROOTCAS": f"[{authority}]",
    }


def peer_environment(organisation: Organisation, peer: Peer, places: Places) -> dict[str, str]:
    """Of `peer node start`. It looks for its organisation's other peer first, or for itself."""
    keys, data = places.peer(organisation, peer), f"{places.data}/{peer.name}"
    neighbour = next((each for each in organisation.peers if each != peer), peer)
    return {
        "FABRIC_CFG_PATH": places.config,
        "CORE_PEER_ID": peer.name,
        "CORE_PEER_LOCALMSPID": organisation.msp_id,
        "CORE_PEER_MSPCONFIGPATH": f"{keys}/msp",
        "CORE_PEER_LISTENADDRESS": f"{places.listen}:{peer.port}",
        "CORE_PEER_ADDRESS": peer.address,
        "CORE_PEER_CHAINCODELISTENADDRESS": f"{places.listen}:{peer.chaincode_port}",
        "CORE_PEER_GOSSIP_BOOTSTRAP": neighbour.address,
        "CORE_PEER_GOSSIP_ENDPOINT": peer.address,
        "CORE_PEER_GOSSIP_EXTERNALENDPOINT": peer.address,
        "CORE_PEER_TLS_CERT_FILE": f"{keys}/tls/server.crt",
        "CORE_PEER_TLS_KEY_FILE": f"{keys}/tls/server.key",
        "CORE_PEER_TLS_ROOTCERT_FILE": f"{keys}/tls/ca.crt",
        "CORE_PEER_FILESYSTEMPATH": f"{data}/peer",
        "CORE_LEDGER_SNAPSHOTS_ROOTDIR": f"{data}/snapshots",
        "CORE_OPERATIONS_LISTENADDRESS": f"{places.listen}:{peer.operations_port}",
    }


def chaincode_environment(
    organisation: Organisation, package_id: str, policy_sha256: str, places: Places
) -> dict[str, str]:
    """Of the chaincode service, which takes calls from holders of its organisation's client certificate only."""
    keys, service = places.chaincode(organisation), organisation.chaincode
    return {
        "CHAINCODE_ID": package_id,
        "CHAINCODE_SERVER_ADDRESS": f"{places.listen}:{service.port}",
        "CHAINCODE_TLS_CERT": f"{keys}/server.crt",
        "CHAINCODE_TLS_KEY": f"{keys}/server.key",
        "CHAINCODE_TLS_CLIENT_CA": f"{keys}/ca.crt",
        "POLICY_SHA256": policy_sha256,
    }


def admin_environment(organisation: Organisation, peer: Peer, address: str, places: Places) -> dict[str, str]:
    """Of the `peer` command as the organisation's administrator, who calls one of its peers."""
    return {
        "FABRIC_CFG_PATH": places.config,
        "FABRIC_LOGGING_SPEC": "error",
        "CORE_PEER_LOCALMSPID": organisation.msp_id,
        "CORE_PEER_MSPCONFIGPATH": f"{places.crypto}/peerOrganizations/{organisation.name}/users/"
        f"Admin@{organisation.name}/msp",
        "CORE_PEER_ADDRESS": address,
        "CORE_PEER_TLS_ROOTCERT_FILE": f"{places.peer(organisation, peer)}/tls/ca.crt",
    }
