"""Private IPFS on real Kubo nodes: the network of them, and the content store that uses it."""
