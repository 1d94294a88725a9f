"""Workers that are forked while a connection to a peer is open: the anchorer starts one again when a codec crashes."""

import subprocess
import sys

FORKING = """
import orthanc_ledger.ledger.fabric
import grpc
from concurrent.futures import ThreadPoolExecutor
from orthanc_ledger.workers import Workers

server = grpc.server(ThreadPoolExecutor(4))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
channel = grpc.insecure_channel(f"127.0.0.1:{port}")
grpc.channel_ready_future(channel).result(30)
for _ in range(40):
    with Workers(abs, 3, lambda job: 60) as workers:
        assert list(workers.map(range(20))) == list(range(20))
"""


def test_a_connection_to_a_peer_kills_no_worker_that_is_forked_meanwhile() -> None:
    subprocess.run([sys.executable, "-c", FORKING], check=True, timeout=120)
