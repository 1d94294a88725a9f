"""The trees against the reference data of certificate-transparency, and proofs against forgeries."""

import pytest

from orthanc_ledger.errors import IntegrityError
from orthanc_ledger.merkle import (
    EMPTY_ROOT,
    Tree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

# Reference leaves, roots and paths of the certificate-transparency test suite (merkle_tree_test).
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]


@pytest.mark.parametrize("size", range(9))
def test_root_is_the_reference_root(size: int) -> None:
    assert root(LEAVES[:size]).hex() == ROOTS[size]


def test_tree_shows_every_root_on_its_way() -> None:
    tree = Tree()
    seen = [tree.root().hex()]
    for leaf in LEAVES:
        tree.add(leaf_hash(leaf))
        seen.append(tree.root().hex())
    assert seen == ROOTS
    assert tree.size == 8


def test_tree_tells_the_perfect_subtrees_that_a_leaf_completes() -> None:
    tree = Tree()
    for size in range(1, 33):
        completed = tree.add(leaf_hash(bytes([size])))
        levels = [level for level in range(6) if size % (1 << level) == 0]
        assert completed == [root(bytes([n]) for n in range(size - (1 << level) + 1, size + 1)) for level in levels]


def test_empty_root_is_the_digest_of_nothing() -> None:
    assert EMPTY_ROOT.hex() == ROOTS[0]


@pytest.mark.parametrize(("index", "size", "path"), PATHS)
def test_proof_is_the_reference_path(index: int, size: int, path: list[str]) -> None:
    proof = inclusion_proof([leaf_hash(leaf) for leaf in LEAVES[:size]], index)
    assert [digest.hex() for digest in proof] == path
    verify_inclusion(leaf_hash(LEAVES[index]), index, size, proof, bytes.fromhex(ROOTS[size]))


def test_every_proof_of_uneven_trees_verifies_only_in_its_place() -> None:
    for size in range(1, 40):
        hashes = [leaf_hash(bytes([number])) for number in range(size)]
        whole = root(bytes([number]) for number in range(size))
        for index in range(size):
            proof = inclusion_proof(hashes, index)
            verify_inclusion(hashes[index], index, size, proof, whole)
            for elsewhere in range(size):
                if elsewhere != index:
                    with pytest.raises(IntegrityError):
                        verify_inclusion(hashes[index], elsewhere, size, proof, whole)


PROOF = inclusion_proof([leaf_hash(leaf) for leaf in LEAVES[:7]], 2)


@pytest.mark.parametrize(
    ("leaf", "index", "size", "proof", "whole"),
    [
        (LEAVES[3], 2, 7, PROOF, ROOTS[7]),
        (LEAVES[2], 7, 7, PROOF, ROOTS[7]),
        (LEAVES[2], -1, 7, PROOF, ROOTS[7]),
        (LEAVES[2], 0, 0, [], ROOTS[0]),
        (LEAVES[2], 2, 3, PROOF, ROOTS[7]),
        (LEAVES[2], 2, 7, PROOF[:-1], ROOTS[7]),
        (LEAVES[2], 2, 7, [*PROOF, PROOF[0]], ROOTS[7]),
        (LEAVES[2], 2, 7, PROOF[::-1], ROOTS[7]),
        (LEAVES[2], 2, 7, PROOF, ROOTS[8]),
    ],
    ids=["other-leaf", "beyond", "negative", "empty-tree", "other-size", "short", "long", "reordered", "other-root"],
)
def test_forged_proof_is_refused(leaf: bytes, index: int, size: int, proof: list[bytes], whole: str) -> None:
    verify_inclusion(leaf_hash(LEAVES[2]), 2, 7, PROOF, bytes.fromhex(ROOTS[7]))
    with pytest.raises(IntegrityError):
        verify_inclusion(leaf_hash(leaf), index, size, proof, bytes.fromhex(whole))


def test_node_cannot_pass_as_leaf() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)


def test_no_proof_for_a_leaf_outside_the_tree() -> None:
    with pytest.raises(IndexError, match="no leaf 3"):
        inclusion_proof([leaf_hash(b"")] * 3, 3)


def part(start: int, end: int) -> bytes:
    """MTH of some leaves, each of one byte."""
    return root(bytes([number]) for number in range(start, end))


SIZES = range(65)
ROOTS_BY_SIZE = [part(0, size) for size in SIZES]
PAIRS = [(old, new) for new in SIZES for old in range(new + 1)]


def subproof(old: int, start: int, end: int, whole: bool) -> list[bytes]:
    """SUBPROOF(old, D[start:end], whole) as RFC 9162 2.1.4.1 defines it, by its recursion."""
    if old == end - start:
        return [] if whole else [part(start, end)]
    middle = 1
    while middle * 2 < end - start:
        middle *= 2
    if old <= middle:
        return [*subproof(old, start, start + middle, whole), part(start + middle, end)]
    return [*subproof(old - middle, start + middle, end, False), part(start, start + middle)]


def test_consistency_proof_is_that_of_the_definition_and_verifies() -> None:
    for old, new in PAIRS:
        proof = consistency_proof(old, new, part)
        assert proof == (subproof(old, 0, new, True) if old else [])
        assert len(proof) <= 2 * new.bit_length()
        verify_consistency(old, ROOTS_BY_SIZE[old], new, ROOTS_BY_SIZE[new], proof)


def test_consistency_proof_of_the_reference_leaves() -> None:
    """From the example of RFC 9162 2.1.5: 3, 4 and 6 leaves of a tree of 7."""
    hashes = [leaf_hash(leaf) for leaf in LEAVES[:7]]
    c, d, g = hashes[2], hashes[3], node_hash(hashes[0], hashes[1])
    i, j, k, m = node_hash(hashes[4], hashes[5]), hashes[6], node_hash(g, node_hash(c, d)), bytes.fromhex(ROOTS[7])
    expected = {3: [c, d, g, node_hash(i, j)], 4: [node_hash(i, j)], 6: [i, j, k]}
    for old, proof in expected.items():
        assert consistency_proof(old, 7, lambda start, end: root(LEAVES[start:end])) == proof
        verify_consistency(old, bytes.fromhex(ROOTS[old]), 7, m, proof)


def test_consistency_of_other_sizes_or_roots_is_refused() -> None:
    other = [root(b"other" + bytes([number]) for number in range(size)) for size in SIZES]
    for old, new in PAIRS:
        proof = consistency_proof(old, new, part)
        forged = [(old, ROOTS_BY_SIZE[old], new, ROOTS_BY_SIZE[new], [*proof, bytes(32)])]
        if old:  # every tree continues the empty one
            forged.append((old, ROOTS_BY_SIZE[old], new, other[new], proof))
        if old != new:
            forged.append((new, ROOTS_BY_SIZE[new], old, ROOTS_BY_SIZE[old], proof))
        if proof:
            forged.append((old, ROOTS_BY_SIZE[old], new, ROOTS_BY_SIZE[new], proof[:-1]))
            forged += [(size, ROOTS_BY_SIZE[old], new, ROOTS_BY_SIZE[new], proof) for size in (old - 1, old + 1)]
            for place in range(len(proof)):
                changed = [*proof[:place], bytes(32), *proof[place + 1 :]]
                forged.append((old, ROOTS_BY_SIZE[old], new, ROOTS_BY_SIZE[new], changed))
        forged.append((old, other[old] if old else bytes(32), new, ROOTS_BY_SIZE[new], proof))
        for attempt in forged:
            with pytest.raises(IntegrityError, match="consistency"):
                verify_consistency(*attempt)


def test_no_consistency_proof_from_a_larger_tree() -> None:
    for old in (-1, 4):
        with pytest.raises(IndexError, match="no tree"):
            consistency_proof(old, 3, part)
