"""The second implementation against published vectors and foreign code: two readings must not be one mistake."""

import io
import struct
from hashlib import sha256
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from pydicom.filereader import data_element_generator
from tink import proto_keyset_format, secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

from tests.second import cid, crafted, dataset, fingerprint, keys, make_vectors, manifest, merkle, sealed
from tests.second.streams import stream

BUNDLED = Path(pydicom.data.__file__).parent / "test_files"

# certificate-transparency, merkle_tree_test
CT_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_merkle_roots_are_those_of_certificate_transparency():
    assert [merkle.root(CT_LEAVES[: n + 1]).hex() for n in range(8)] == CT_ROOTS
    assert merkle.root([]) == sha256(b"").digest()


def test_inclusion_paths_are_those_of_certificate_transparency():
    hashes = [merkle.leaf_hash(leaf) for leaf in CT_LEAVES]
    assert [node.hex() for node in merkle.path(5, hashes)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert [node.hex() for node in merkle.path(2, hashes[:3])] == [CT_ROOTS[1]]


@pytest.mark.parametrize(
    ("ikm", "salt", "info", "length", "expected"),
    [
        (
            "0b" * 22, "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9", 42,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(0x50)).hex(), bytes(range(0x60, 0xB0)).hex(), bytes(range(0xB0, 0x100)).hex(), 82,
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            "0b" * 22, "", "", 42,
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)  # fmt: skip
def test_hkdf_gives_the_test_cases_of_rfc_5869(ikm, salt, info, length, expected):
    made = keys.hkdf(bytes.fromhex(ikm), bytes.fromhex(salt), bytes.fromhex(info), length)
    assert made.hex() == expected


def test_small_files_have_the_cids_everybody_knows():
    assert cid.of_bytes(b"") == "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    assert cid.of_bytes(b"hello world") == "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"


@pytest.mark.parametrize(
    ("mebibytes", "expected"),
    [
        (1024, "bafybeihmf37wcuvtx4hpu7he5zl5qaf2ineo2lqlfrapokkm5zzw7zyhvm"),
        (1025, "bafybeihmzokxxjqwxjcryerhp5ezpcog2wcawfryb2xm64xiakgm4a5jue"),
    ],
)
def test_large_files_have_the_cids_kubo_publishes_for_unixfs_v1_2025(mebibytes, expected):
    # Kubo's cid_profiles_test: a ChaCha20 key stream under SHA-256 of the seed, nonce and counter zero
    key_stream = Cipher(ChaCha20(sha256(b"v1-2025-seed").digest(), bytes(16)), None).encryptor()
    zeros = bytes(1 << 20)
    assert cid.of_chunks(key_stream.update(zeros) for _ in range(mebibytes)) == expected


@pytest.mark.parametrize(
    ("value", "encoded", "expected"),
    [
        ([], "80", "bafyreidwx2fvfdiaox32v2mnn6sxu3j4qoxeqcuenhtgrv5qv6litfnmoe"),
        ([500], "811901f4", "bafyreidasbkb6vj3obxxqqgiz2ahvw7iaxmj446bbnrroj3jt6vzpo5fhm"),
        ([65536], "811a00010000", "bafyreiarke72vvg3sfs2nrpzpgnxs7dqcdu2e4ytixgo7snkyoq5w7oddu"),
        (
            [6433713753386423], "811b0016db6db6db6db7",
            "bafyreifflym5ibfezh3vwegpsh6hngjeczrjw35a7fsgsfqui4vgy2eawu",
        ),
        (b"\xa1", "41a1", "bafyreidfn5bivgcww7slkgp7f5iiukoggxr542m4pzl3zn3oia7ozt7ffe"),
        (
            ["array", ["of", [5, ["nested", ["arrays", "!"]]]]],
            "8265617272617982626f66820582666e657374656482666172726179736121",
            "bafyreihmxfmn5wcpzpiqa6zfefgabxmd2jzr2bd4y2v7c2ss4plkgkabgq",
        ),
        (
            manifest.Link("bafkreiebzrnroamgos2adnbpgw5apo3z4iishhbdx77gldnbk57d4zdio4"),
            "d82a5825000155122081cc5b17018674b401b42f35ba07bb79e211239c23bffe658da1577e3e646877",
            "bafyreic3yrxqeqgoi24fo3h43nfkfs4cntcx243g3lzv3n2hnmcm5ksnzu",
        ),
    ],
)  # fmt: skip
def test_dag_cbor_is_that_of_the_ipld_codec_fixtures(value, encoded, expected):
    assert manifest.encode(value).hex() == encoded
    assert cid.of_block(manifest.encode(value)) == expected


def test_dag_cbor_orders_keys_by_length_then_bytes():
    assert manifest.encode({"bb": 1, "c": 2, "aa": None, "a": -1}).hex() == "a4616120616302626161f662626201"


@pytest.fixture(scope="module")
def tink():
    """Tink's own primitive for the key and associated data of the vectors."""
    streaming_aead.register()
    key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(key_value=bytes(range(32)))
    key.params.ciphertext_segment_size = 1 << 20
    key.params.derived_key_size = 32
    key.params.hkdf_hash_type = common_pb2.SHA256
    keyset = tink_pb2.Keyset(primary_key_id=1)
    entry = keyset.key.add(key_id=1, status=tink_pb2.ENABLED, output_prefix_type=tink_pb2.RAW)
    entry.key_data.type_url = "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey"
    entry.key_data.value = key.SerializeToString()
    entry.key_data.key_material_type = tink_pb2.KeyData.SYMMETRIC
    handle = proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)


@pytest.mark.parametrize("size", [0, 1, make_vectors.FIRST - 1, make_vectors.FIRST, make_vectors.FIRST + 1, 3_000_000])
def test_tink_and_the_second_implementation_open_each_others_objects(tink, size):
    plain, aad = stream("tink", size), sealed.associated_data(bytes(16), bytes(32))
    ours = sealed.seal(plain, bytes(range(32)), aad, bytes(range(32, 64)), bytes(7))
    with tink.new_decrypting_stream(io.BytesIO(ours), aad) as reader:
        assert reader.read() == plain
    kept = io.BytesIO()
    kept.close = lambda: None
    with tink.new_encrypting_stream(kept, aad) as writer:
        writer.write(plain)
    assert sealed.unseal(kept.getvalue(), bytes(range(32)), aad) == plain


@pytest.mark.parametrize("case", make_vectors.sealed_cases(), ids=lambda case: str(case["plain_size"]))
def test_spoiled_objects_do_not_open(case):
    whole = make_vectors.remake_sealed(case)
    aad = sealed.associated_data(bytes.fromhex(case["study_token"]), bytes.fromhex(case["instance_token"]))
    for change in case["refused"]:
        with pytest.raises(sealed.Refused):
            sealed.unseal(make_vectors.spoil(whole, change), bytes.fromhex(case["key"]), aad)


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "examples_overlay.dcm"]
)
def test_top_level_elements_are_those_pydicom_reads(name):
    raw = (BUNDLED / name).read_bytes()
    syntax, elements = dataset.read_file(raw)
    start = 144 + struct.unpack_from("<I", raw, 140)[0]
    source = io.BytesIO(raw[start:])
    implicit, little = syntax == "1.2.840.10008.1.2", syntax != "1.2.840.10008.1.2.2"
    theirs = [(int(e.tag), e.value) for e in data_element_generator(source, implicit, little) if e.VR != "SQ"]
    ours = [(e.tag[0] << 16 | e.tag[1], e.value or None) for e in elements if e.value is not None]
    assert ours == [(tag, value or None) for tag, value in theirs]


# Each line: crafted or bundled files that differ only in how the same thing is encoded.
SAME_METADATA = [
    ["private-sq", "private-sq-delimited", "private-un", "private-un-undefined", "private-ob", "private-implicit"],
    ["private-sq", "private-un-big-endian", "private-sq-big-endian"],
    ["private-sq-empty", "private-lo-empty", "private-sq-no-items"],
    ["public-sequence-as-sq", "public-sequence-as-un"],
    ["public-sequence-empty", "public-sequence-empty-un"],
    ["text-padded", "text-not-padded", "text-as-un"],
    ["overlay", "overlay-big-endian"],
]
SAME_PIXELS = [
    ["words-big-endian", "deflated", "deflated-then-zero", "deflated-then-gzip-trailer", "zeros-behind-last-frame"],
    ["rle", "rle-photometric-unknown", "rle-bits-stored-none", "rle-bits-stored-more-than-allocated"],
    ["two-samples", "rle-two-samples"],
    ["bytes-big-endian", "bytes-in-words-big-endian"],
    ["colour-by-pixel", "colour-by-plane", "colour-no-planar"],
    ["32-bit", "32-bit-big-endian-words"],
    ["encoded-by-table", "encoded-by-end-of-image"],
]


@pytest.mark.parametrize(
    ("names", "root"),
    [(names, "metadata_root") for names in SAME_METADATA] + [(names, "pixel_root") for names in SAME_PIXELS],
)
def test_other_encodings_of_the_same_keep_the_root(names, root):
    files = dict(crafted.files())
    assert len({getattr(fingerprint.of_file(files[name]), root) for name in names}) == 1


def test_a_mr_slice_has_one_fingerprint_in_every_lossless_syntax_bundled():
    names = ["", "_RLE", "_expb", "_jp2klossless", "_jpeg_ls_lossless", "_padded"]
    roots = {fingerprint.of_file((BUNDLED / f"MR_small{name}.dcm").read_bytes()).pixel_root for name in names}
    assert len(roots) == 1


@pytest.mark.parametrize("name", sorted(make_vectors.FILES))
def test_the_committed_vectors_are_what_the_second_implementation_makes(name):
    assert (make_vectors.FOLDER / f"{name}.json").read_text() == make_vectors.text(name)
