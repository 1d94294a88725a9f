"""The tables in `docs/fabric.md` and `docs/ipfs.md`: who runs what, and which rules bind them."""

from orthanc_ledger.consortium.topology import CHAINCODE, CHANNEL, Cluster, Kubo, Orderer, Peer, Server, Topology

BEGIN, END = "<!-- topology, made from the model -->\n", "<!-- end of topology -->\n"


def fabric_table(topology: Topology) -> str:
    """What stands between the marks of `docs/fabric.md`."""
    servers = [
        f"| {each.name} ({each.role}) | `{server.name}` | {_msp_id(each.msp_id, server)} | {_ports(server)} |"
        for each in topology.organisations
        for server in each.servers
        if not isinstance(server, Kubo | Cluster)
    ]
    rules = (
        ("transactions and the chaincode's definition", topology.endorsement),
        ("changes of the channel, its members and rules", topology.admins),
        ("changes of the ordering service", topology.orderer_admins),
    )
    lines = [
        f"Channel `{CHANNEL}`, chaincode `{CHAINCODE}`.",
        "",
        "| organisation (role) | server | MSP ID | ports on 127.0.0.1 |",
        "|---|---|---|---|",
        *servers,
        "",
        "| what | who must sign |",
        "|---|---|",
        *(f"| {what} | `{rule}` |" for what, rule in rules),
    ]
    return "\n".join(lines) + "\n"


def ipfs_table(topology: Topology) -> str:
    """What stands between the marks of `docs/ipfs.md`."""
    nodes = [
        f"| {each.name} ({each.role}) | `{kubo.name}` | {kubo.port} | {kubo.api_port} |"
        for each in topology.organisations
        for kubo in each.kubos
    ]
    head = ["| organisation (role) | node | swarm port on 127.0.0.1 | API port |", "|---|---|---|---|"]
    return "\n".join([*head, *nodes]) + "\n"


def with_table(page: str, table: str) -> str:
    """The page with a table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table}{END}{after}"


def _msp_id(own: str, server: Server) -> str:
    return server.msp_id if isinstance(server, Orderer) else own


def _ports(server: Server) -> str:
    if isinstance(server, Orderer):
        return (
            f"{server.port} (TLS), {server.admin_port} administration (mutual TLS), {server.operations_port} operations"
        )
    if isinstance(server, Peer):
        return f"{server.port} (TLS), {server.operations_port} operations"
    return f"{server.port} (mutual TLS, for the organisation's own peers)"
