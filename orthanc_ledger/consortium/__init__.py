"""The ledger's network on Hyperledger Fabric: one model of it, and the trial network on this machine made from it.

Nothing of a node needs this package: it starts, stops and deploys what `ledger/fabric/` talks to.

`topology.py` is the model. Out of it come a network's folder (`files.py`, by `settings.py`, `keys.py`, `packages.py`),
each server's environment (`servers.py`), the compose files (`compose.py`) with the Orthancs that only those have
(`orthanc.py`), the docs' tables (`page.py`). `network.py` runs the servers (`processes.py`) of programs that are built
here (`binaries.py`, `mends.py`), `administration.py` joins and deploys, `trial.py` puts it to use.
"""
