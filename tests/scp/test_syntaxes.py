"""Every transfer syntax that can be stored, on its way out: as it is where it is accepted, else native, or not at all.

In by C-STORE, anchored, out by C-GET (research, under an approval) and C-MOVE (clinical), all over sockets.
"""

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import pydicom.data
import pytest
from gate_world import RESEARCH, World
from node_make import drain, make_node, part10
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pynetdicom import AE, evt
from pynetdicom.presentation import PresentationContext, build_context

from dicom_scp.__main__ import NodeArchive
from dicom_scp.contexts import TRANSFER_SYNTAXES
from dicom_scp.server import Listener
from orthanc_ledger.instance import open_instance
from orthanc_ledger.peer import Peer

from .book import CT
from .client import (
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    MR,
    RLE,
    File,
    Outcome,
    Received,
    associated,
    bundled,
    get,
    load,
    move,
    storage,
    store,
    study_level,
)
from .test_retrieve import fingerprint, hold
from .world import LOCAL, SCANNER, WORKSTATION, Node, config

SC = "1.2.840.10008.5.1.4.1.1.7"
JPEG = "1.2.840.10008.1.2.4."
JPIP = JPEG + "94"  # nothing is ever stored in it
COLUMNS = ("same", "explicit", "implicit", "other")

# What the issue asks for, by hand: transfer syntax, then how an object stored in it goes to a recipient that accepts
# all of them, explicit little endian only, implicit little endian only, none that the node could send.
NATIVE_AND_LOSSLESS = ("stored", "explicit", "implicit", "failed")
KEPT = ("stored", "failed", "failed", "failed")
TABLE = {
    "1.2.840.10008.1.2": ("stored", "explicit", "stored", "failed"),
    "1.2.840.10008.1.2.1": ("stored", "stored", "implicit", "failed"),
    "1.2.840.10008.1.2.2": NATIVE_AND_LOSSLESS,
    "1.2.840.10008.1.2.1.99": NATIVE_AND_LOSSLESS,
    "1.2.840.10008.1.2.1.98": NATIVE_AND_LOSSLESS,
    "1.2.840.10008.1.2.5": NATIVE_AND_LOSSLESS,
    **dict.fromkeys((JPEG + tail for tail in ("57", "70", "80", "90", "201", "202")), NATIVE_AND_LOSSLESS),
    # Lossless, and no decoder is pinned for it.
    **dict.fromkeys((JPEG + tail for tail in ("58", "65", "66", "92", "110")), KEPT),
    "1.2.840.10008.1.2.8.1": KEPT,
    # Lossy, or it may be.
    **dict.fromkeys((JPEG + tail for tail in ("50", "51", "81", "91", "93", "111", "112", "203")), KEPT),
    **dict.fromkeys((f"{JPEG}{tail}" for tail in (*range(52, 57), *range(59, 65))), KEPT),
    **dict.fromkeys((f"{JPEG}{tail}" for tail in range(100, 109)), KEPT),
    **dict.fromkeys((f"{JPEG}{tail}.1" for tail in range(100, 107)), KEPT),
}

# Files of pydicom's that are no composite instance in a readable file: no file meta, UID or level above, other encoding
# than they say.
NOT_INSTANCES = {
    *("ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "meta_missing_tsyntax.dcm", "no_meta.dcm", "rtstruct.dcm"),
    *("JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "SC_rgb_jls_lossy_line.dcm"),
    *("SC_rgb_jls_lossy_sample.dcm", "SC_rgb_jpeg.dcm", "UN_sequence.dcm", "empty_charset_LEI.dcm"),
    *("nested_priv_SQ.dcm", "no_meta_group_length.dcm", "priv_SQ.dcm", "OT-PAL-8-face.dcm"),
    *("emri_small_jpeg_2k_lossless_too_short.dcm", "bad_sequence.dcm"),
}
# Big endian with private binary values, which no fingerprint follows into another byte order (docs/fingerprint.md).
UNLIKE = {"3.dcm": KEPT}
DAMAGED = {"MR_truncated.dcm": ("stored", "stored", "failed", "failed")}
DAMAGED["rtplan_truncated.dcm"] = ("stored", "failed", "stored", "failed")

# HTJ2K of 8 × 8 samples of 12 bits, reversible, made by OpenJPH 0.9 (Debian's openjph-tools); RPCL, as .202 demands.
HTJ2K = bytes.fromhex(
    "ff4fff5100294000000000080000000800000000000000000000000800000008000000000000000000010b0101ff500008000200"
    "000007ff52000c00020001000104044001ff5c00072070707078ff64001600014f70656e4a50482056657220302e392e302eff90"
    "000a00000000004d0001ff93c0016f80ff7fff737ff7e7bf7bf657feff7f3ff8433f78a2f75cdb00f597210031b800c001510004"
    "f0002504f0daa51c0255006a5bc0c4ce5500fce0085400ffd9"
)


# HTJ2K of the same size by the same encoder, irreversible: it would decode, and must not be.
LOSSY_HTJ2K = bytes.fromhex(
    "ff4fff5100294000000000080000000800000000000000000000000800000008000000000000000000010b0101ff500008000200"
    "000020ff52000c00020001000104044000ff5c000b222d062ca82ca82c4eff64001600014f70656e4a50482056657220302e392e"
    "302eff90000a0000000000310001ff93c2b0d19fdb941d98fb0857033500c2584b0980e0a27fd400daa04dc400c4d6b57bd400ff"
    "d9"
)


def in_syntax(syntax: str, pixel_data: bytes, **attributes: int) -> File:
    """The small MR image with other encoded pixels, which nothing but their syntax's decoder understands."""
    ds = bundled("MR_small.dcm").dataset
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([pixel_data])
    ds["PixelData"].is_undefined_length = True
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return of_bytes(part10(ds))


def of_bytes(content: bytes) -> File:
    parsed = open_instance(BytesIO(content))
    return File(Path(), dcmread(BytesIO(content)), parsed.transfer_syntax_uid, content[parsed.data_set_offset :])


def named_anew(file: File, number: int) -> File:
    """The same bytes but for the SOP Instance UID's last digits: several files are forms of one object."""
    if file.transfer_syntax == DEFLATED:
        return file
    uid = file.sop_instance
    other = f"{uid[:-3]}{100 + number}"
    file.dataset.SOPInstanceUID = other
    return replace(file, encoded=file.encoded.replace(uid.encode(), other.encode(), 1))


@dataclass
class Through:
    """A node with both its ports and a move destination; what went in, by SOP Instance UID."""

    world: World
    ports: Mapping[str, int]
    destination: int
    files: dict[str, File]

    def got(self, column: str) -> Outcome:
        """What a research recipient gets that accepts a column's transfer syntaxes."""
        return get(self.ports["research"], self.all_studies(), self.accepted(column), RESEARCH.ae_title)

    def moved(self, column: str) -> Outcome:
        """What a clinical destination gets that accepts a column's transfer syntaxes."""
        received, by_class = Received(), {}
        for context in self.accepted(column):
            by_class.setdefault(context.abstract_syntax, []).extend(context.transfer_syntax)
        ae = AE("ARCHIVE")
        contexts = [build_context(sop_class, syntaxes) for sop_class, syntaxes in by_class.items()]
        handlers = [(evt.EVT_C_STORE, received.take)]
        server = ae.start_server((LOCAL, self.destination), block=False, contexts=contexts, evt_handlers=handlers)
        try:
            outcome = move(self.ports["clinical"], self.all_studies(), "ARCHIVE")
        finally:
            server.shutdown()
        return replace(outcome, received=received)

    def accepted(self, column: str) -> list[PresentationContext]:
        if column == "same":
            return storage(list(self.files.values()))
        syntax = {"explicit": EXPLICIT, "implicit": IMPLICIT, "other": JPIP}[column]
        classes = {str(file.dataset.SOPClassUID) for file in self.files.values()}
        return [build_context(sop_class, [syntax]) for sop_class in sorted(classes)]

    def all_studies(self) -> Dataset:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "STUDY"
        identifier.StudyInstanceUID = sorted({file.study for file in self.files.values()})
        return identifier


@contextmanager
def through(folder: Path, destination: int, files: Sequence[File]) -> Iterator[Through]:
    """Store the files and anchor them; all are approved for a research peer."""
    node = make_node(folder)
    peers = SCANNER, WORKSTATION, replace(RESEARCH, hosts=()), Peer("ARCHIVE", "clinical", host=LOCAL, port=destination)
    listeners = {
        serves: Listener(config(serves, peers), node.spool, NodeArchive(node)) for serves in ("clinical", "research")
    }
    world = World(node, folder, "", [])
    try:
        for listener in listeners.values():
            listener.start()
        ports = {serves: listener.port for serves, listener in listeners.items()}
        with associated(ports["clinical"], storage(files)) as assoc:
            for file in files:
                assert store(assoc, file).Status == 0x0000, file.path.name
        drain(node)
        held = {file.sop_instance: file for file in files}
        studies = {node.keyring.ensure_study(file.study).token for file in files}
        classes = sorted({str(file.dataset.SOPClassUID) for file in files})
        request = world.request(studies=sorted(studies), sopClasses=classes)
        world.approve(request, "owner", "custodian")
        yield Through(world, ports, destination, held)
    finally:
        for listener in listeners.values():
            listener.shutdown()


def form(file: File, received: Received) -> str:
    """How an object came: `stored`, `explicit`, `implicit`, or `failed`; the test fails where it is another object."""
    if file.sop_instance not in received.objects:
        return "failed"
    syntax, data_set = received.objects[file.sop_instance]
    if syntax == file.transfer_syntax:
        assert data_set == file.encoded, f"{file.path.name}: sent as stored, yet with other bytes"
        return "stored"
    same = fingerprint(data_set, syntax) == fingerprint(file.encoded, file.transfer_syntax)
    assert same, f"{file.path.name}: another object"
    return {EXPLICIT: "explicit", IMPLICIT: "implicit"}[syntax]


def forms(there: Through) -> dict[str, tuple[str, ...]]:
    """How each object went out in each column, by C-GET and C-MOVE alike; what did not is named by its UID."""
    rows: dict[str, list[str]] = {uid: [] for uid in there.files}
    for column in COLUMNS:
        got, moved = there.got(column), there.moved(column)
        for outcome in (got, moved):
            assert set(outcome.failed) == there.files.keys() - outcome.received.objects.keys()
            some = 0xB000 if outcome.received.objects else 0xA702
            assert outcome.final.Status == (some if outcome.failed else 0x0000)
        for uid, file in there.files.items():
            rows[uid].append(form(file, got.received))
            assert form(file, moved.received) == rows[uid][-1]
    return {uid: tuple(row) for uid, row in rows.items()}


def check_table(there: Through, figure: Callable[[str], None]) -> None:
    """Tell the table as it came out; it must be that by hand, for every file."""
    rows = forms(there)
    came: dict[tuple[str, ...], list[str]] = {}
    for uid, file in there.files.items():
        came.setdefault(rows[uid], []).append(file.transfer_syntax)
    for row, syntaxes in sorted(came.items()):
        told = f"{len(syntaxes)} files in {len(set(syntaxes))} transfer syntaxes: {'/'.join(row)}"
        figure(f"{told} where {'/'.join(COLUMNS)} is accepted")
    expected = {uid: UNLIKE.get(file.path.name, TABLE[file.transfer_syntax]) for uid, file in there.files.items()}
    unlike = {there.files[uid].path.name: row for uid, row in rows.items() if row != expected[uid]}
    assert unlike == {}


@pytest.fixture(scope="module")
def kinds(dcmtk: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> list[File]:
    """Real files of pydicom's wheel, two that dcmtk makes, and one made here for each syntax that has no other."""
    folder = Path(pydicom.data.__file__).parent / "test_files"
    files = [load(path) for path in sorted(folder.glob("*.dcm")) if path.name not in {*NOT_INSTANCES, *DAMAGED}]
    for tool, option, name in (("dcmcjpeg", "+el", "MR_small.dcm"), ("dcmcjpls", "+en", "examples_overlay.dcm")):
        target = tmp_path_factory.mktemp("dcmtk") / name
        subprocess.run([dcmtk(tool), option, folder / name, target], check=True, capture_output=True, timeout=60)
        files.append(load(target))
    eight = {"Rows": 8, "Columns": 8, "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}
    for tail, stream in (("201", HTJ2K), ("202", HTJ2K), ("203", LOSSY_HTJ2K)):
        files.append(in_syntax(JPEG + tail, stream, **eight))
    files.append(in_syntax("1.2.840.10008.1.2.1.98", bundled("MR_small.dcm").dataset.PixelData))
    missing = [syntax for syntax in TABLE if syntax not in {file.transfer_syntax for file in files}]
    files += [in_syntax(syntax, b"encoded") for syntax in missing]
    return [named_anew(file, number) for number, file in enumerate(files)]


def test_table_has_every_transfer_syntax_that_is_accepted() -> None:
    assert TABLE.keys() == set(TRANSFER_SYNTAXES)


@pytest.mark.parametrize("syntax", [JPEG + "81", JPEG + "203"])
def test_a_lossy_object_of_the_table_could_be_decoded(kinds: list[File], syntax: str) -> None:
    """So that a node that decodes it is found: rubbish would stay as it is there, too."""
    (file,) = [each for each in kinds if each.transfer_syntax == syntax]
    assert file.dataset.pixel_array.size


@pytest.mark.filterwarnings("ignore")  # pydicom's, of what is wrong with real files
def test_every_transfer_syntax_goes_out_as_the_table_says(
    tmp_path: Path, free_port: Callable[[], int], kinds: list[File], figure: Callable[[str], None]
) -> None:
    assert {file.transfer_syntax for file in kinds} == TABLE.keys()
    with through(tmp_path, free_port(), kinds) as there:
        check_table(there, figure)


@pytest.mark.filterwarnings("ignore")  # as above
def test_real_files_of_the_collection_go_out_as_the_table_says(
    tmp_path: Path, free_port: Callable[[], int], dicom_dir: Path, figure: Callable[[str], None]
) -> None:
    folders = "siemens-transfer-syntaxes", "pydicom-data"
    paths = [path for folder in folders for path in sorted((dicom_dir / folder).glob("*.dcm"))]
    files = [load(path) for path in paths if path.name not in NOT_INSTANCES]
    files = [named_anew(file, number) for number, file in enumerate(files)]
    with through(tmp_path, free_port(), files) as there:
        check_table(there, figure)


def test_damaged_objects_go_as_they_are_to_clinical_peers_alone(tmp_path: Path, free_port: Callable[[], int]) -> None:
    files = [named_anew(bundled(name), number) for number, name in enumerate(DAMAGED)]
    with through(tmp_path, free_port(), files) as there:
        for at, column in enumerate(COLUMNS):
            assert there.got(column).received.objects == {}
            moved = there.moved(column).received
            assert {file.path.name: form(file, moved) for file in files} == {
                name: DAMAGED[name][at] for name in DAMAGED
            }


@pytest.mark.parametrize("syntax", ["1.2.826.0.1.3680043.10.1.1", JPIP, "1.2.840.10008.1.20"])
def test_private_and_unknown_transfer_syntaxes_are_not_taken(node: Node, syntax: str) -> None:
    with associated(node.port, [build_context(MR, [syntax]), build_context(CT, [EXPLICIT])]) as assoc:
        assert [context.abstract_syntax for context in assoc.accepted_contexts] == [CT]


def test_what_is_chosen_when_several_transfer_syntaxes_are_proposed(node: Node) -> None:
    """In one context a native one, as whatever is native or lossless can be sent on it; who wants lossy objects
    proposes a context for them. Of several contexts that of the stored syntax, else explicit before implicit.
    """
    files = [bundled("MR_small_RLE.dcm"), bundled("JPEG2000.dcm")]
    lossless, lossy = (named_anew(file, number) for number, file in enumerate(files))
    hold(node, lossless, lossy)
    several = [JPEG + "91", RLE, IMPLICIT, EXPLICIT]
    for contexts, came in (
        ([build_context(SC, several), build_context(MR, several)], ["failed", "explicit"]),
        ([build_context(MR, [IMPLICIT]), build_context(MR, [EXPLICIT])], ["failed", "explicit"]),
        ([build_context(sop_class, [syntax]) for sop_class in (SC, MR) for syntax in several], ["stored", "stored"]),
    ):
        received = [get(node.port, study_level(file.study), contexts).received for file in (lossy, lossless)]
        assert [form(file, each) for file, each in zip((lossy, lossless), received, strict=True)] == came
