"""What our builds of Fabric, Kubo and ipfs-cluster differ in from their releases.

Fabric's (MENDS) are faults by which any member could stop every peer for good. A block stays, so a peer that it ends or
hangs does so again after each start. Verdicts are the release's, where it comes to one. What a newer Fabric has mended
itself goes from here: of none newer than 3.1.1 could sources be had.

Kubo's (KUBO_MENDS) is one by which a node never asks a peer for blocks; ipfs-cluster's (CLUSTER_MENDS) are one by which
pins never reach a peer, and a socket that no setting closes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orthanc_ledger.errors import ConfigError


@dataclass(frozen=True)
class Mend:
    """A text that stands once in a file of the sources, and what is built in its place."""

    file: str
    was: str
    becomes: str


_KEY_LEVEL = "core/common/validation/statebased/"

MENDS = (
    # A transaction without `action` was a nil pointer here: validation ended the peer, and again at each start, as the
    # block stays. Taken as empty it does not fit the proposal's hash: INVALID_ENDORSER_TRANSACTION.
    Mend(
        "core/common/validation/msgvalidation.go",
        "(ccActionPayload.Action.ProposalResponsePayload)",
        "(ccActionPayload.GetAction().GetProposalResponsePayload())",
    ),
    # The same, and none or unreadable actions, when another transaction of the block was validated: that one looks at
    # all before it, invalid ones too, and waited for ever for what was not readable.
    Mend(
        f"{_KEY_LEVEL}validator_keylevel.go",
        "extractDependenciesForTx(blockNum, txNum uint64, envelopeBytes []byte) {\n",
        "extractDependenciesForTx(blockNum, txNum uint64, envelopeBytes []byte) {\n"
        "action, _ := protoutil.GetActionFromEnvelope(envelopeBytes)\n"
        "klv.vpmgr.ExtractValidationParameterDependency(blockNum, txNum, action.GetResults())\n"
        "return\n",
    ),
    # Who writes a key whose validation parameter is changed earlier in the block waited for that change's verdict; one
    # that is invalid by its form never gets any. With one worker, in the block's order, there is nothing to wait for.
    Mend("core/peer/peer.go", "semaphore.New(nWorkers)", "semaphore.New(1)"),
    Mend(
        f"{_KEY_LEVEL}vpmanagerimpl.go",
        "\tfor !ok {\n\t\td.cond.Wait()\n\t\terr, ok = d.validationResultMap[ns]\n\t}\n",
        '\tif !ok {\nerr = errors.New("invalid by its form")\n}\n',
    ),
    # A validation parameter that cannot be read (any organisation's peer can endorse one in the collection of its own)
    # stopped the channel on every peer at the next write. Now nothing satisfies it: ENDORSEMENT_POLICY_FAILURE.
    Mend(
        f"{_KEY_LEVEL}vpmanagerimpl.go",
        "policy, err := m.PolicyTranslator.Translate(mdMap[pb.MetaDataKeys_VALIDATION_PARAMETER.String()])\n",
        "policy, err := m.PolicyTranslator.Translate(mdMap[pb.MetaDataKeys_VALIDATION_PARAMETER.String()])\n"
        "if err != nil {\nreturn []byte{0}, nil\n}\n",
    ),
    # A write to a private data collection that nobody defined was an error here, which ends the peer likewise, also for
    # a transaction that is invalid already. There is nothing private to look for then.
    Mend(
        "gossip/privdata/coordinator.go",
        "colConfig, err := c.CollectionStore.RetrieveCollectionConfig(cc)\n",
        "colConfig, err := c.CollectionStore.RetrieveCollectionConfig(cc)\nif err != nil && invalid {\ncontinue\n}\n",
    ),
)

KUBO_MENDS = (
    # A peer that dials in while a node comes up is connected, and never asked for a block until it is connected anew:
    # bitswap learns of later connections alone. Nodes that are started together meet so once in some hundred times.
    # As in boxo's pull request 1201, which no release of Kubo has that could be had.
    Mend(
        "bitswap/network/bsnet/ipfs_impl.go",
        "\tbsnet.host.Network().Notify((*netNotifiee)(bsnet))\n",
        "\tbsnet.host.Network().Notify((*netNotifiee)(bsnet))\n"
        "\tfor _, conn := range bsnet.host.Network().Conns() {\n"
        "(*netNotifiee)(bsnet).Connected(bsnet.host.Network(), conn)\n}\n",
    ),
)

CLUSTER_MENDS = (
    # Asks the router, and by multicast everybody near, to let the Internet in (NAT-PMP, UPnP).
    Mend("clusterhost.go", "\t\tlibp2p.NATPortMap(),\n", ""),
    # A peer that dials in before this one takes part in pubsub sends it nothing while they are connected: the pins that
    # it takes never get here. So nobody can dial in before. Peers that start together met so once in ten times.
    Mend("clusterhost.go", "libp2p.ListenAddrs(cfg.ListenAddr...)", "libp2p.NoListenAddrs"),
    Mend(
        "clusterhost.go",
        "\treturn h, bwc, psub, idht, nil\n",
        "\treturn h, bwc, psub, idht, h.Network().Listen(cfg.ListenAddr...)\n",
    ),
)


def mend(sources: Path, mends: Iterable[Mend] = MENDS) -> None:
    """Apply to a copy of the sources. Raises ConfigError when a text does not stand there exactly once."""
    for each in mends:
        path = sources / each.file
        text = path.read_text() if path.is_file() else ""
        if (count := text.count(each.was)) != 1:
            raise ConfigError(f"{each.file}: expected `{each.was.strip()}` once, got it {count} times: see mends.py")
        path.write_text(text.replace(each.was, each.becomes))
