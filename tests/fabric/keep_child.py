"""Keeps envelopes until it is killed, and tells each once it is kept: python -m tests.fabric.keep_child FILE."""

import sys
from itertools import count
from pathlib import Path

from orthanc_ledger.ledger.fabric.envelopes import Envelopes


def main() -> None:
    envelopes = Envelopes(Path(sys.argv[1]))
    for number in count():
        envelopes.keep(number.to_bytes(32, "big"), b"envelope %d" % number, 1_800_000_000)
        print(number, flush=True)


if __name__ == "__main__":
    main()
