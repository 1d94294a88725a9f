"""The configuration files of Fabric's programs, as values to be written as YAML.

One `core.yaml` serves all peers and one `orderer.yaml` all orderers: what is a server's own stands in its environment
(`servers.py`). Both list only what differs from Fabric's defaults, or what has none.
"""

from collections.abc import Iterable
from typing import Any

from orthanc_ledger.consortium.topology import LOOPBACK, Orderer, Organisation, Peer, Settings, Topology

PROFILE = "Custody"

# Of an envelope. The largest of the contract, ProposePolicy with 256 CA certificates of 4,096 bytes, has 5.8 MB: the
# call's arguments (1.4 MB), and the same in its record, in its event, and in that event's record.
_ENVELOPE_MB = 6
# Of a message to a peer or orderer: such an envelope, or a block of it alone, with headers and signatures. It is read
# before its sender is known; by Fabric's default (100 MB) a few of them take a server's memory.
_MESSAGE_BYTES = (_ENVELOPE_MB + 1) << 20
_SOFTWARE_CRYPTO = {"Default": "SW", "SW": {"Hash": "SHA2", "Security": 256}}


def core_yaml(settings: Settings, builder: str) -> dict[str, Any]:
    """The peers' `core.yaml`; ``builder`` is the folder of the external builder for chaincode as a service."""
    filters = [{"name": "DefaultAuth"}, {"name": "ExpirationCheck"}]
    if settings.time_window_s is not None:
        filters.append({"name": "TimeWindowCheck"})
    return {
        "peer": {
            "networkId": "custody",
            "maxRecvMsgSize": _MESSAGE_BYTES,
            "authentication": {"timewindow": f"{settings.time_window_s or 0}s"},
            "BCCSP": _SOFTWARE_CRYPTO,
            "tls": {"enabled": True},
            "gossip": _gossip(),
            # One frozen peer of another organisation must not make clients time out (default 30 s).
            "gateway": {"enabled": True, "endorsementTimeout": "3s", "broadcastTimeout": "5s", "dialTimeout": "3s"},
            "discovery": {"enabled": True},
            "limits": {"concurrency": {"endorserService": 2500, "deliverService": 2500, "gatewayService": 500}},
            "handlers": {
                "authFilters": filters,
                "decorators": [{"name": "DefaultDecorator"}],
                "endorsers": {"escc": {"name": "DefaultEndorsement", "library": ""}},
                "validators": {"vscc": {"name": "DefaultValidation", "library": ""}},
            },
        },
        "vm": {"endpoint": ""},  # no Docker: chaincode is a service
        "chaincode": {
            "externalBuilders": [{"name": "ccaas", "path": builder, "propagateEnvironment": []}],
            "executetimeout": "30s",
            "startuptimeout": "60s",
            "installTimeout": "60s",
            "mode": "net",
            "system": {"_lifecycle": "enable", "cscc": "enable", "lscc": "enable", "qscc": "enable"},
            "logging": {"level": "info", "shim": "warning"},
            "runtimeParams": {
                "useWriteBatch": True,
                "maxSizeWriteBatch": 1000,
                "useGetMultipleKeys": True,
                "maxSizeGetMultipleKeys": 1000,
            },
        },
        "ledger": {
            "state": {"stateDatabase": "goleveldb", "totalQueryLimit": 100_000},
            "history": {"enableHistoryDatabase": True},
            "snapshots": {},
        },
        "operations": {},
        "metrics": {"provider": "prometheus"},
    }


def _gossip() -> dict[str, Any]:
    """Every peer takes its blocks from the orderers itself; what gossip is left for is who is there, and how far."""
    return {
        "useLeaderElection": False,
        "orgLeader": True,
        "state": {"enabled": False},
        # By the defaults (25 s, 5 s, 25 s, 4 s) a peer that was restarted is found by the others after half a minute.
        "reconnectInterval": "1s",
        "aliveTimeInterval": "1s",
        "aliveExpirationTimeout": "10s",
        "publishStateInfoInterval": "1s",
        "requestStateInfoInterval": "1s",
        # An organisation's approval of a definition goes to its other peer as private data, for which 0 s (what is not
        # set) is too short. Nothing else here is private; a block that lacks some waits for nothing.
        "pvtData": {
            "implicitCollectionDisseminationPolicy": {"requiredPeerCount": 0, "maxPeerCount": 1},
            "pushAckTimeout": "3s",
            "transientstoreMaxBlockRetention": 20_000,
        },
    }


def orderer_yaml() -> dict[str, Any]:
    """The orderers' `orderer.yaml`."""
    return {
        "General": {
            "TLS": {"Enabled": True},
            "MaxRecvMsgSize": _MESSAGE_BYTES,
            "Cluster": {},
            "BCCSP": _SOFTWARE_CRYPTO,
            "Authentication": {"TimeWindow": "15m"},
        },
        "FileLedger": {},
        "ChannelParticipation": {"Enabled": True, "MaxRequestBodySize": "1 MB"},
        "Consensus": {"WALDir": "", "SnapDir": ""},
        "Operations": {},
        "Metrics": {"Provider": "prometheus"},
        "Admin": {"TLS": {"Enabled": True, "ClientAuthRequired": True}},
    }


def crypto_config(topology: Topology) -> dict[str, Any]:
    """cryptogen's input: an MSP for each organisation's peers and people, another for its orderer."""
    return {
        "PeerOrgs": [_authority(each.name, each.peers) | {"Users": {"Count": 0}} for each in topology.organisations],
        "OrdererOrgs": [_authority(orderer.domain, (orderer,)) for orderer in topology.orderers],
    }


def _authority(domain: str, servers: Iterable[Orderer | Peer]) -> dict[str, Any]:
    specs = [
        {"Hostname": each.name, "CommonName": each.name, "SANS": sorted({each.host, LOOPBACK})} for each in servers
    ]
    return {"Name": domain, "Domain": domain, "EnableNodeOUs": True, "Specs": specs}


def configtx(topology: Topology, settings: Settings, crypto: str) -> dict[str, Any]:
    """configtxgen's input: the channel's first block. ``crypto``: the folder of cryptogen's output."""
    return {
        "Profiles": {
            PROFILE: {
                "Policies": _policies(topology.admins),
                "Capabilities": {"V3_0": True},
                "Orderer": {
                    "OrdererType": "etcdraft",
                    "BatchTimeout": f"{settings.batch_timeout_ms}ms",
                    "BatchSize": {
                        "MaxMessageCount": settings.max_message_count,
                        "AbsoluteMaxBytes": f"{_ENVELOPE_MB} MB",
                        "PreferredMaxBytes": "2 MB",
                    },
                    "EtcdRaft": {
                        "Consenters": [_consenter(each, crypto) for each in topology.orderers],
                        "Options": {
                            "TickInterval": "100ms",
                            "ElectionTick": 10,
                            "HeartbeatTick": 1,
                            "MaxInflightBlocks": 5,
                            "SnapshotIntervalSize": "16 MB",
                        },
                    },
                    "Organizations": [_orderer_organisation(each, crypto) for each in topology.orderers],
                    "Policies": {
                        **_policies(topology.orderer_admins),
                        "BlockValidation": {"Type": "ImplicitMeta", "Rule": "ANY Writers"},
                    },
                    "Capabilities": {"V2_0": True},
                },
                "Application": {
                    "Organizations": [_organisation(each, crypto) for each in topology.organisations],
                    "Policies": {
                        **_policies(topology.admins),
                        "LifecycleEndorsement": _signature(topology.endorsement),
                        "Endorsement": _signature(topology.endorsement),
                    },
                    "Capabilities": {"V2_5": True},
                },
            }
        }
    }


def _policies(admins: str) -> dict[str, Any]:
    return {
        "Readers": {"Type": "ImplicitMeta", "Rule": "ANY Readers"},
        "Writers": {"Type": "ImplicitMeta", "Rule": "ANY Writers"},
        "Admins": _signature(admins),
    }


def _signature(rule: str) -> dict[str, str]:
    return {"Type": "Signature", "Rule": rule}


def _any_of(msp_id: str, *kinds: str) -> dict[str, str]:
    return _signature(f"OR({', '.join(repr(f'{msp_id}.{kind}') for kind in kinds)})")


def _consenter(orderer: Orderer, crypto: str) -> dict[str, Any]:
    certificate = f"{crypto}/ordererOrganizations/{orderer.domain}/orderers/{orderer.name}/tls/server.crt"
    return {
        "Host": orderer.host,
        "Port": orderer.port,
        "ClientTLSCert": certificate,
        "ServerTLSCert": certificate,
    }


def _orderer_organisation(orderer: Orderer, crypto: str) -> dict[str, Any]:
    msp_id = orderer.msp_id
    return {
        "Name": msp_id,
        "ID": msp_id,
        "MSPDir": f"{crypto}/ordererOrganizations/{orderer.domain}/msp",
        "Policies": {
            "Readers": _any_of(msp_id, "member"),
            "Writers": _any_of(msp_id, "member"),
            "Admins": _any_of(msp_id, "admin"),
        },
        "OrdererEndpoints": [orderer.address],
    }


def _organisation(organisation: Organisation, crypto: str) -> dict[str, Any]:
    msp_id = organisation.msp_id
    return {
        "Name": msp_id,
        "ID": msp_id,
        "MSPDir": f"{crypto}/peerOrganizations/{organisation.name}/msp",
        "Policies": {
            "Readers": _any_of(msp_id, "admin", "peer", "client"),
            "Writers": _any_of(msp_id, "admin", "client"),
            "Admins": _any_of(msp_id, "admin"),
            "Endorsement": _any_of(msp_id, "peer"),
        },
        "AnchorPeers": [{"Host": peer.host, "Port": peer.port} for peer in organisation.peers],
    }
