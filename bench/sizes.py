"""What sizes tell: how many scans of an archive a record's size leaves, plain and padded (docs/privacy.md).

    python -m bench.sizes FOLDER [FOLDER ...]    # DICOM series, a folder each

The attacker has the archive's files and the sizes in the manifests: a data set's to the byte (`plain_size` less what is
always there). All series together are the archive, as they are and in lossless transfer syntaxes.
"""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

SYNTAXES: Mapping[str, UID] = {
    "native": ExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}
WINDOW = 10  # slices of a series, as somebody stored them


def padme(size: int) -> int:
    """The next size of Padmé (Nikitin et al., PoPETs 2019): at most 12 % more, O(log log) bits told."""
    exponent = size.bit_length() - 1
    least = exponent - exponent.bit_length()
    return size if least <= 0 else (size + (1 << least) - 1) & ~((1 << least) - 1)


PADDINGS: Mapping[str, Callable[[int], int]] = {"as it is": lambda size: size, "Padmé": padme}


def sizes(folder: Path, syntax: UID) -> list[int]:
    """Sizes of a series' data sets in a transfer syntax, in the order of the files."""
    found = []
    for path in sorted(folder.glob("*.dcm")):
        scan, sink = dcmread(path), BytesIO()
        if syntax.is_compressed:
            scan.compress(syntax, generate_instance_uid=False)
        del scan.file_meta.TransferSyntaxUID
        scan.save_as(sink, implicit_vr=False, little_endian=True, enforce_file_format=False)
        found.append(sink.tell())
    return found


def told(of_series: Sequence[Sequence[int]]) -> str:
    """Bits and share of unique sizes of one object; share of runs of ten objects that fit one place only."""
    single = Counter(size for series in of_series for size in series)
    total = single.total()
    bits = -sum(count / total * math.log2(count / total) for count in single.values())
    unique = sum(count == 1 for count in single.values()) / total
    runs = Counter(tuple(run) for series in of_series for run in _runs(series))
    alone = sum(count == 1 for count in runs.values()) / max(runs.total(), 1)
    return f"{total} | {len(single)} | {bits:.1f} of {math.log2(total):.1f} | {unique:.0%} | {alone:.0%}"


def _runs(series: Sequence[int]) -> Iterable[tuple[int, ...]]:
    """All runs of ten slices, sorted, as records have another order than slices."""
    return (tuple(sorted(series[at : at + WINDOW])) for at in range(len(series) - WINDOW + 1))


def main(folders: Sequence[str]) -> None:
    print("| transfer syntax | sizes | objects | sizes that differ | bits told | unique objects | unique runs of ten |")
    print("|---|---|---|---|---|---|---|")
    for name, syntax in SYNTAXES.items():
        measured = [sizes(Path(folder), syntax) for folder in folders]
        for padding, pad in PADDINGS.items():
            print(f"| {name} | {padding} | {told([[pad(size) for size in series] for series in measured])} |")
        more = sum(padme(size) for series in measured for size in series) / sum(map(sum, measured)) - 1
        print(f"{name}: Padmé adds {more:.1%}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
