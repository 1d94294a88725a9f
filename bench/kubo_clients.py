"""HTTP clients beside each other on one Kubo node: what docs/ipfs.md says of them comes from here.

    python -m bench.kubo_clients API TOKEN_FILE BLOCKS [--megabytes N]

BLOCKS is the node's flatfs folder, where a byte is flipped; the node's process is frozen for a moment: it must be one
of your own. Each client runs in its own process: N MB up (`add`) and down (`cat`), a hundred calls, a damaged leaf,
a frozen node. What is not installed is left out (pip install httpx requests "urllib3<3" ipfshttpclient==0.7.0).
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from orthanc_ledger.content.cid import children, is_tree
from orthanc_ledger.content.kubo.places import block_path

CLIENTS = ("ipfshttpclient", "requests", "httpx", "urllib3")
PROFILE = "cid-version=1&raw-leaves=true&chunker=size-1048576&max-file-links=1024&quieter=true"
STALL_S = 3.0
_MB = 1 << 20
_HEADER = {"Content-Type": "multipart/form-data; boundary=xYx"}


def client_of(name: str, api: str, token: str) -> Any:
    """Returns call(path, body, stream): the response's chunks, or its bytes."""
    headers = {"Authorization": f"Bearer {token}"}
    if name == "requests":
        import requests

        session = requests.Session()
        session.trust_env = False
        session.headers.update(headers)

        def call(path: str, body: Iterable[bytes] | None = None) -> Iterator[bytes]:
            with session.post(
                f"{api}/api/v0/{path}", data=body, headers=_HEADER if body else {}, stream=True, timeout=STALL_S
            ) as got:
                got.raise_for_status()
                yield from got.iter_content(_MB)
    elif name == "httpx":
        import httpx

        pool = httpx.Client(headers=headers, timeout=STALL_S, trust_env=False)

        def call(path: str, body: Iterable[bytes] | None = None) -> Iterator[bytes]:
            with pool.stream("POST", f"{api}/api/v0/{path}", content=body, headers=_HEADER if body else {}) as got:
                got.raise_for_status()
                yield from got.iter_bytes()
    elif name == "urllib3":
        import urllib3

        manager = urllib3.PoolManager(timeout=STALL_S, retries=False)

        def call(path: str, body: Iterable[bytes] | None = None) -> Iterator[bytes]:
            url = f"{api}/api/v0/{path}"
            got = manager.request(
                "POST", url, body=body, headers={**headers, **(_HEADER if body else {})}, preload_content=False
            )
            if got.status != 200:
                raise RuntimeError(got.status)
            yield from got.stream(_MB)
            got.release_conn()
    else:
        import ipfshttpclient

        address = f"/ip4/{urlsplit(api).hostname}/tcp/{urlsplit(api).port}/http"
        theirs = ipfshttpclient.Client(address, session=True, headers=headers, timeout=STALL_S)

        def call(path: str, body: Iterable[bytes] | None = None) -> Iterator[bytes]:
            command, _, options = path.partition("?")
            pairs = [pair.split("=") for pair in options.split("&")] if options else []
            arguments = [value for key, value in pairs if key == "arg"]
            rest = {key: value for key, value in pairs if key != "arg"}
            yield from theirs._client.request(
                f"/{command}", arguments, opts=rest, data=body, headers=_HEADER if body else {}, stream=True
            )

    return call


def multipart(path: Path) -> Iterator[bytes]:
    yield b'--xYx\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n'
    yield b"Content-Type: application/octet-stream\r\n\r\n"
    with path.open("rb") as file:
        while data := file.read(_MB):
            yield data
    yield b"\r\n--xYx--\r\n"


def measure(name: str, api: str, token: str, blocks: Path, source: Path) -> dict[str, object]:
    """Everything of one client."""
    call, size = client_of(name, api, token), source.stat().st_size
    port = urlsplit(api).port
    node = next(c.pid for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port)
    row: dict[str, object] = {"client": name}
    before, cpu = time.perf_counter(), time.process_time()
    cid = json.loads(b"".join(call(f"add?{PROFILE}&pin=true", multipart(source))))["Hash"]
    row["up MB/s"], up = round(size / 1e6 / (time.perf_counter() - before)), time.process_time() - cpu
    before, cpu = time.perf_counter(), time.process_time()
    got = sum(map(len, call(f"cat?arg={cid}&offline=true")))
    row["down MB/s"], down = round(size / 1e6 / (time.perf_counter() - before)), time.process_time() - cpu
    row["CPU s/GB up, down"] = f"{up / size * 1e9:.2f}, {down / size * 1e9:.2f}"
    row["memory MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    row["whole"] = got == size

    opened = set()
    for _ in range(100):
        list(call("version"))
        opened |= {c.laddr.port for c in psutil.Process().net_connections("tcp") if c.raddr and c.raddr.port == port}
    row["connections for 100 calls"] = len(opened)

    part = cid
    while is_tree(part):
        part = children(b"".join(call(f"block/get?arg={part}")))[-2:][0]
    leaf = blocks.parent / block_path(part)
    healthy = leaf.read_bytes()
    leaf.write_bytes(healthy[:-1] + bytes([healthy[-1] ^ 1]))
    row["damaged leaf"] = told(lambda: sum(map(len, call(f"cat?arg={cid}&offline=true"))), size)
    leaf.write_bytes(healthy)

    before = time.perf_counter()
    stream = call(f"cat?arg={cid}&offline=true")
    next(stream)
    os.kill(node, signal.SIGSTOP)
    try:
        row["frozen node"] = told(lambda: sum(map(len, stream)), size)
        row["frozen node"] = f"{row['frozen node']} after {time.perf_counter() - before:.1f} s"
    finally:
        os.kill(node, signal.SIGCONT)
    list(call(f"pin/rm?arg={cid}"))
    return row


def told(read: Any, size: int) -> str:
    """What a caller learns of a body that is not whole."""
    try:
        got = read()
    except Exception as error:
        return f"raises {type(error).__name__}"
    return "nothing amiss" if got == size else f"{got / size:.0%} of the bytes, no error"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("api")
    parser.add_argument("token_file", type=Path)
    parser.add_argument("blocks", type=Path)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--client", choices=CLIENTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        with source.open("wb") as file:
            for _ in range(args.megabytes):
                file.write(os.urandom(_MB))
        if args.client:
            print(json.dumps(measure(args.client, args.api, args.token_file.read_text().strip(), args.blocks, source)))
            return
    for name in CLIENTS:
        done = subprocess.run(
            [sys.executable, "-W", "default", "-m", "bench.kubo_clients", *sys.argv[1:], "--client", name],
            capture_output=True,
            text=True,
        )
        warnings = [line for line in done.stderr.splitlines() if "Warning" in line]
        print(done.stdout.strip() or done.stderr[-1500:], f"warnings: {len(warnings)} {warnings[:2]}", flush=True)


if __name__ == "__main__":
    main()
