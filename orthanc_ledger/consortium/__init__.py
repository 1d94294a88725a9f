"""The ledger's network on Hyperledger Fabric: one model of it, and the trial network on this machine made from it.

Nothing of a node needs this package: it starts, stops and deploys what `ledger/fabric/` talks to.
"""
