"""An attacker with all bytes of ledger and IPFS and an archive's scans in the clear recognises none of them.

And that his program would: it does where a protection is off, and finds what is planted.
"""

import base64
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from gate_world import World

from orthanc_ledger import tokens
from orthanc_ledger.content.cid import cid_of
from orthanc_ledger.fingerprint import fingerprints
from orthanc_ledger.instance import open_instance
from tests.kubo.live import running_kubos, write_yaml
from tests.privacy import world as worlds
from tests.privacy.attacker import Match, attack, look_at, search
from tests.privacy.guesses import Guess, archive, guesses, under
from tests.second import cid

STORED = {name for name in worlds.archived() if name.startswith("stored")}
ANCHORED = STORED - {"stored, as a conflict"}

# With one protection off: what must be recognised, and of which files.
OFF = {
    "keys": (
        {"under a guessable key", "under a guessable salt key", "opened by a guessable key"},
        {"stored", "stored, as a conflict"},
    ),
    "salts": ({"fingerprint", "equal values"}, ANCHORED),
    "seals": (
        {
            *("run of the file", "run of the data set", "run of pixel data", "digest of the data set", "CID"),
            *(f"{what} in the clear" for what in ("UID", "name", "date", "time", "text")),
        },
        ANCHORED,
    ),
}

WRITINGS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "hex": lambda content: content.hex().encode(),
    "base64": lambda content: base64.b64encode(content).rstrip(b"="),
    "base32": lambda content: base64.b32encode(content).lower().rstrip(b"="),
}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return worlds.archived()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What was published of other scans."""
    return worlds.published(worlds.make(tmp_path_factory.mktemp("elsewhere"), worlds.others()))


@pytest.fixture(scope="module")
def looked_for(files: dict[str, bytes]) -> dict[bytes, Guess]:
    return guesses(archive(files))


def check_that_it_looks(world: World, places: list[Path]) -> None:
    """The attacker has every record, and every sealed object under its CID: else nothing is no answer."""
    seen = look_at(places)
    objects = {cid.text(bytes(record["object"])) for _, record in seen.of_studies()}
    assert objects == {instance.object for instance in world.node.index.select()}
    assert objects <= seen.blocks.keys()


def test_nothing_is_recognised(tmp_path: Path, files: dict[str, bytes], elsewhere: list[Path]) -> None:
    world = worlds.make(tmp_path, worlds.stored(), worlds.BUNDLED)
    check_that_it_looks(world, worlds.published(world))
    worlds.damage(world)
    (ledger, *_) = places = worlds.published(world)
    for function in ("ReportConflict", "FlagTampered", "LogRelease", "LogOutcome", "RegisterDataset", "RequestErase"):
        assert function.encode() in b"".join(path.read_bytes() for path in ledger.parent.glob("ledger.db*"))
    assert attack(places, files, elsewhere) == set()


@pytest.mark.timeout(1200)  # with what is built the first time
def test_nothing_is_recognised_in_a_kubo_node_s_repository(
    tmp_path: Path, free_port: Callable[[], int], files: dict[str, bytes], elsewhere: list[Path]
) -> None:
    with running_kubos(tmp_path / "kubos", free_port, hospital_kubos=1) as kubos:
        node, other = kubos.node(), kubos.node("kubo0.custodian")
        other.call("add", body=b"what Kubo writes around anything")
        content = write_yaml(tmp_path / "kubo.yaml", node, local=str(tmp_path / "node" / "data" / "objects"))
        world = worlds.make(tmp_path, worlds.stored(), worlds.BUNDLED, content=f"kubo:{content}")
    places = [*worlds.published(world)[:-1], node.repo]
    check_that_it_looks(world, places)
    assert attack(places, files, [*elsewhere, other.repo]) == set()


@pytest.mark.parametrize("protection", OFF)
def test_with_a_protection_off_the_same_program_recognises_them(
    tmp_path: Path, files: dict[str, bytes], elsewhere: list[Path], protection: str
) -> None:
    with worlds.without(protection):
        world = worlds.make(tmp_path, worlds.stored(), worlds.BUNDLED)
    found = attack(worlds.published(world), files, elsewhere)
    kinds, recognised = OFF[protection]
    assert {match.kind for match in found} >= kinds
    assert {match.of for match in found} >= recognised


@pytest.mark.parametrize("written", WRITINGS)
def test_every_kind_is_found_however_it_is_written(
    tmp_path: Path, looked_for: dict[bytes, Guess], written: str
) -> None:
    """Planted between bytes that mean nothing, at any place."""
    dice, kinds = random.Random(written), {guess.kind: needle for needle, guess in looked_for.items()}
    assert len(kinds) == 17
    planted = b"".join(
        dice.randbytes(40 + n) + b"\0" + WRITINGS[written](dice.randbytes(n % 7) + needle + dice.randbytes(8)) + b"\0"
        for n, needle in enumerate(kinds.values())
    )
    (tmp_path / "planted").write_bytes(planted)
    found = search(look_at([tmp_path / "planted"]).views, looked_for)
    assert {match.kind for match in found if match.written == written} == kinds.keys()


def test_what_a_database_keeps_in_several_places_is_found(tmp_path: Path, looked_for: dict[bytes, Guess]) -> None:
    needle = next(needle for needle, guess in looked_for.items() if guess.kind == "run of the file")
    with closing(sqlite3.connect(tmp_path / "planted.db")) as database, database:
        database.execute("CREATE TABLE blobs (value)")
        database.executemany("INSERT INTO blobs VALUES (?)", ((bytes(n) + needle,) for n in range(4000, 4100)))
    seen = look_at([tmp_path / "planted.db"])
    assert sum(needle in view for view in seen.views["raw"]) == 101  # a hundred rows, and the file itself


def test_nothing_is_found_in_bytes_that_mean_nothing(tmp_path: Path, looked_for: dict[bytes, Guess]) -> None:
    (tmp_path / "noise").write_bytes(random.Random(0).randbytes(1_000_000))
    assert search(look_at([tmp_path / "noise"]).views, looked_for) == set()


def test_he_thinks_of_what_the_product_computes(files: dict[str, bytes]) -> None:
    """Its own functions, with the keys left out."""
    scans = archive({"stored": files["stored"]})
    uid, body = scans[0].uids[0], scans[0].body
    plain, keyed = guesses(scans), under(scans, [b"public-token-16b"], [])
    (fingerprint,) = fingerprints(open_instance(BytesIO(files["stored"])), (None,))
    for digest in (fingerprint.fingerprint, fingerprint.pixel_root, fingerprint.metadata_root):
        assert digest in plain
    assert base64.b32decode(cid_of(BytesIO(files["stored"]))[1:].upper() + "=" * 6)[4:] in plain
    for token in (
        tokens.instance_token(b"public-token-16b", uid),
        tokens.content_id(b"public-token-16b", fingerprint.fingerprint),
        tokens.keyed_digest(b"public-token-16b", sha256(body).digest()),
    ):
        assert token[:16] in keyed


def test_a_match_names_file_kind_and_writing(tmp_path: Path, looked_for: dict[bytes, Guess]) -> None:
    needle, guess = next((needle, guess) for needle, guess in looked_for.items() if guess.kind == "name in the clear")
    (tmp_path / "planted").write_bytes(b"\0" + needle + b"\0")
    assert Match(*guess, "raw", needle) in search(look_at([tmp_path / "planted"]).views, looked_for)
