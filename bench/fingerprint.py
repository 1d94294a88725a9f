"""How fast objects are fingerprinted by one process, beside plain SHA-256 of the same bytes.

    python -m bench.fingerprint

As the anchorer does it: a Part 10 file in memory is parsed, and both its trees are made twice at once, unsalted and
salted. SHA-256 is hashlib's over the whole file. Each is repeated for half a second; the fastest tenth tells.
"""

import hashlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.conditions import conditions
from bench.report import table
from bench.slices import BESIDE, LARGE, MEDIUM, SMALL, copies, huge_object, series
from orthanc_ledger.fingerprint import fingerprints
from orthanc_ledger.instance import open_instance

ENHANCED = BESIDE.parents[2] / "philips-enhanced-and-classic" / "enh"

_FOR_S = 0.5
_SALTS = (None, bytes(32))


def rows() -> list[dict[str, object]]:
    """A row for each object: slices of four sizes; a real enhanced multi-frame object, where one lies beside the clone,
    whose functional groups are many elements; one with as many frames and few elements.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"MR slice as it is": series()[0]}
        for size in (SMALL, MEDIUM, LARGE):
            [study] = copies(size, folder / size.name, 1)
            files[f"MR slice, {size.name}"] = next(study.iterdir())
        for path in sorted(ENHANCED.glob("*.dcm"), key=lambda path: path.stat().st_size)[-1:]:
            files["enhanced MR, as it is"] = path
        huge_object(folder / "multi-frame.dcm", 50)
        files["multi-frame MR, the elements of one slice"] = folder / "multi-frame.dcm"
        return [_row(what, path.read_bytes()) for what, path in files.items()]


def _row(what: str, content: bytes) -> dict[str, object]:
    megabytes = len(content) / 1e6
    fingerprint_s = _seconds(lambda: fingerprints(open_instance(io.BytesIO(content)), _SALTS))
    sha256_s = _seconds(lambda: hashlib.sha256(content).digest())
    return {
        "object": what,
        "MB": f"{megabytes:,.3f}",
        "elements": f"{sum(1 for _ in open_instance(io.BytesIO(content)).elements()):,}",
        "fingerprints/s": f"{1 / fingerprint_s:,.0f}",
        "MB/s": f"{megabytes / fingerprint_s:,.0f}",
        "SHA-256, MB/s": f"{megabytes / sha256_s:,.0f}",
        "÷ SHA-256": f"{sha256_s / fingerprint_s:.3f}×",
    }


def _seconds(work: Callable[[], object]) -> float:
    """What one call takes when nothing disturbs it: the median of the fastest tenth of many."""
    found: list[float] = []
    end = time.perf_counter() + _FOR_S
    while not found or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(sorted(found)[: max(1, len(found) // 10)])


if __name__ == "__main__":
    print(table([{"": name, " ": fact} for name, fact in conditions().items()]))
    print(table(rows()))
