"""Checks a receipt: `python verify_receipt.py RECEIPT.json [FILE.dcm] --trust CA.pem`, of an embedded ledger, or
`... --peers MSPID=CA.pem --peers MSPID=CA.pem`, on Fabric: of each organisation a peer must have signed. The reference,
written from the pages beside it; no code of the project. Exit codes: 0 proven; 1 not proven, or not readable; 2 wrong
options, or a form of file that only `orthanc-ledger verify-receipt` reads.
"""

import argparse
import base64
import json
import struct
import sys
from hashlib import sha256
from pathlib import Path

import dag_cbor
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from pydicom.datadict import dictionary_has_tag, dictionary_VR, repeater_has_tag

TEXT = ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"]
SHORT = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
EXPLICIT = {b"1.2.840.10008.1.2": False, b"1.2.840.10008.1.2.1": True}
PIXELS = (0x7FE00010, 0x7FE00008, 0x7FE00009)
LEFT_OUT = {0x00080001: 4, 0x00080054: 1024, 0x00080056: 16, 0x00880130: 16, 0x00880140: 64, 0x7FE00003: 8}
LEFT_OUT |= {0x7FE00001: 0, 0x7FE00002: 0}  # offset tables of no fragments
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256: SEC 2, 2.4.2
KEY = b"-----BEGIN PUBLIC KEY-----"
UNDEFINED, ITEM, ITEM_END, SEQUENCE_END = 0xFFFFFFFF, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


def need(holds, what):
    if not holds:
        raise ValueError(what)


def check_inclusion(what, leaf, index, size, proof, root):  # RFC 9162 2.1.3.2
    need(0 <= index < size, f"{what}: index {index} of {size}")
    siblings, last = [bytes.fromhex(sibling) for sibling in proof], size - 1
    while last:
        if index & 1 or index < last:
            leaf = sha256(b"\1" + (siblings.pop(0) + leaf if index & 1 else leaf + siblings.pop(0))).digest()
        index, last = index >> 1, last >> 1
    need(leaf == root and not siblings, f"{what}: not under its root")


def check_signature(what, certificate, signature, message, time, trusted):  # ledger.md, "Identities"
    issuer = next((ca for ca in trusted if ca.subject == certificate.issuer), None)
    need(issuer, f"{what}: signed under {certificate.issuer.rfc4514_string()}, which is not trusted")
    certificate.verify_directly_issued_by(issuer)
    certificate.public_key().verify(signature, message, ECDSA(SHA256()))
    for used in (certificate, issuer):
        need(used.not_valid_before_utc.timestamp() <= time <= used.not_valid_after_utc.timestamp(), f"{what}: expired")
    return issuer


def check_member(what, der, *signed):
    certificate = x509.load_der_x509_certificate(der)
    extension = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1"))
    need(json.loads(extension.value.value)["attrs"]["kind"] in ("person", "node"), f"{what}: its signer has no kind")
    return check_signature(what, certificate, *signed)


def check_entry(evidence, trusted, pinned):  # ledger.md, "The embedded log"; checkpoint.md
    outer = dag_cbor.decode(entry := bytes.fromhex(evidence["entry"]))
    tx = dag_cbor.decode(outer["tx"])
    need((tx["v"], tx["function"]) == (1, "Anchor"), "entry: not an Anchor of version 1")
    need(-7 * 86_400 <= tx["time"] - outer["time"] <= 300, "entry: signed too far from its time")
    signer = check_member("entry", tx["cert"], outer["signature"], outer["tx"], outer["time"], trusted.values())
    text, _, signatures = evidence["checkpoint"].partition("\n\n")
    origin, size, root, time, certificate = text.split("\n")
    need(origin == f"orthanc-ledger/{tx['log'].hex()}", "checkpoint: of another log")
    own = [line.split(" ")[2] for line in signatures.split("\n") if line.startswith(f"— {origin} ")]
    signed = {blob[:4]: blob[4:] for blob in map(base64.b64decode, reversed(own))}
    der = base64.b64decode(certificate.removeprefix("certificate "))
    key = x509.load_der_x509_certificate(der).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    need((own_id := sha256(key).digest()[:4]) in signed, "checkpoint: not signed by the key of its certificate")
    message, time, root = f"{text}\n".encode(), int(time.removeprefix("time ")), base64.b64decode(root)
    keeper = check_member("checkpoint", der, signed[own_id], message, time, trusted.values())
    head = f"{origin}\n".encode() + b"\xfforthanc-ledger ML-DSA-65"
    keys = {sha256(head + key.public_bytes_raw()).digest()[:4]: key for ca, key in pinned if ca == keeper}
    checked = [keys[key_id].verify(signed[key_id], message) for key_id in keys.keys() & signed]
    need(checked or not keys, "checkpoint: not signed by an ML-DSA key that is trusted")
    check_inclusion("entry", sha256(b"\0" + entry).digest(), evidence["position"], int(size), evidence["proof"], root)
    return tx["args"], outer["time"], {signer, keeper}


def fields(message):  # of a protobuf message: numbers and bytes, by the field's number
    def varint(at):
        end = next(place for place in range(at, len(message)) if message[place] < 0x80) + 1
        return sum((octet & 0x7F) << 7 * place for place, octet in enumerate(message[at:end])), end

    at, found = 0, {}
    while at < len(message):
        key, at = varint(at)
        value, at = varint(at)
        need(key & 7 in (0, 2), "answer: a field of a type that Fabric's messages do not have")
        if key & 7 == 2:
            value, at = message[at : at + value], at + value
            need(at <= len(message), "answer: a field is cut off")
        found.setdefault(key >> 3, []).append(value)
    return found


def part(message, *path):  # the field that stands once in the field that stands once in ...
    for number in path:
        (message,) = fields(message)[number]
    return message


def check_answer(evidence, peers, _):  # receipt.md, "Evidence of kind `fabric`"
    said = dag_cbor.decode(bytes.fromhex(evidence["answer"]))
    names = "channelHeader", "signatureHeader", "payload", "response"
    channel, header, question, response = (said[name] for name in names)
    need(said["v"] == 1, "answer: of another version")
    need(part(response, 1) == sha256(channel + header + question).digest(), "answer: to another question")
    need((fields(header).keys(), fields(question).keys()) == ({1, 2}, {1}), "answer: fields that are none of its own")
    asked = sha256(part(header, 2) + part(header, 1)).hexdigest().encode()
    need(part(channel, 5) == asked, "answer: its transaction id is not that of nonce and caller")
    function, args = fields(part(question, 1, 1, 3))[1]
    need(part(response, 2, 3, 1) == 200, "answer: a refusal")
    need(part(response, 2, 4, 2) == part(question, 1, 1, 2, 2), "answer: of another chaincode")
    anchor = json.loads(part(response, 2, 3, 3))  # DAG-JSON
    text = anchor["root"]["/"]["bytes"]
    anchor["root"] = base64.b64decode(text + "=" * (-len(text) % 4))
    need((function, json.loads(args)) == (b"GetAnchor", {"manifestCid": anchor["manifestCid"]}), "answer: no GetAnchor")
    signed, time = set(), part(channel, 3, 1)
    for each in said["endorsements"]:
        endorser, signature, msp_id = each["endorser"], each["signature"], part(each["endorser"], 1).decode()
        if msp_id not in peers:
            continue
        certificate = x509.load_pem_x509_certificate(part(endorser, 2))
        units = certificate.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATIONAL_UNIT_NAME)
        need("peer" in [unit.value for unit in units], "answer: not signed by a peer")
        need(decode_dss_signature(signature)[1] <= ORDER // 2, "answer: a signature that no peer makes")
        check_signature("answer", certificate, signature, response + endorser, time, [peers[msp_id]])
        signed.add(msp_id)
    need(signed == set(peers), f"answer: signed by peers of {sorted(signed)}, expected {sorted(peers)}")
    return anchor, anchor["time"], set(peers.values())


def leaf_hash(path, kind, value, salt):  # fingerprint.md, "Trees"
    need(len(bytes.fromhex(salt)) == 32, "a salt has 32 bytes")
    head = len(path).to_bytes(4, "big") + path + bytes([kind]) + len(value).to_bytes(8, "big")
    return sha256(b"\0" + bytes.fromhex(salt) + head + value).digest()


def check_elements(elements, size, root):
    last = (-1, b"")
    for element in elements:
        path, value, kind = bytes.fromhex(element["path"]), bytes.fromhex(element["value"]), element["kind"]
        need(kind in (1, 2) and len(path) % 8 == 4, "element: no leaf of the metadata tree")
        need(last[0] < element["index"] and last[1] < path, "elements: they do not rise")
        last, leaf = (element["index"], path), leaf_hash(path, kind, value, element["salt"])
        check_inclusion(path.hex(), leaf, last[0], size, element["proof"], root)
        yield f"element {path.hex()}, kind {kind}: {value}"


def check_tree(name, leaves, listed, record):
    expected = [(leaf["path"], leaf["kind"]) for leaf in listed]
    need([(path.hex(), kind) for path, kind, _ in leaves] == expected, f"file: other {name} leaves")
    hashes = [leaf_hash(*leaf, other["salt"]) for leaf, other in zip(leaves, listed, strict=True)]
    while len(hashes) > 1:  # RFC 6962 2.1
        pairs = [sha256(b"\1" + b"".join(hashes[at : at + 2])).digest() for at in range(0, len(hashes) - 1, 2)]
        hashes = pairs + hashes[2 * len(pairs) :]
    found = hashes[0] if leaves else sha256().digest()
    need((len(leaves), found) == (record[f"{name}_leaves"], record[f"{name}_root"]), f"file: another {name} root")


class File:  # fingerprint.md: a native little-endian file; the leaves a receipt lists say which elements are sequences
    def __init__(self, data, listed):
        self.data, self.kinds, self.leaves, self.top = data, {leaf["path"]: leaf["kind"] for leaf in listed}, [], {}
        at, meta = data.index(b"DICM", 128, 132) + 4, {}
        while data[at : at + 2] == b"\2\0":
            tag, _, start, at = self.header(at, explicit=True)
            meta[tag] = data[start:at].rstrip(b"\0")
        if meta[0x00020010] not in EXPLICIT:
            raise NotImplementedError("not native little-endian: use `orthanc-ledger verify-receipt`")
        self.read(at, len(data), EXPLICIT[meta[0x00020010]])

    def header(self, at, explicit):  # PS3.5 7.1
        group, element, vr, length = struct.unpack_from("<HH2sH", self.data, at)
        at, explicit = at + 8, explicit and group != 0xFFFE
        if not explicit or vr not in SHORT:
            at += 4 * explicit
            length = int.from_bytes(self.data[at - 4 : at], "little")
        return group << 16 | element, vr if explicit else b"", at, None if length == UNDEFINED else at + length

    def read(self, at, end, explicit, path=b"", items=False):  # elements or items, up to a delimiter or end: where?
        last, place = -1, len(self.leaves)
        while at < end:
            tag, vr, start, stop = self.header(at, explicit and not items)
            if path and tag == (SEQUENCE_END if items else ITEM_END) and start == stop:
                at = start
                break
            need(start <= (stop or end) <= end and (tag == ITEM if items else tag > last), f"file: wrong at byte {at}")
            inner = path + (last := last + 1 if items else tag).to_bytes(4, "big")
            if items or stop is None or self.kinds.get(inner.hex()) == 2:
                at = self.read(start, stop or end, explicit and vr in (b"SQ", b""), inner, items=not items)
            else:
                self.add(tag, inner, self.data[start:stop])
                at = stop
        if items:  # an empty one of unknown VR counts as a value
            sequence = last >= 0 or self.kinds.get(path.hex()) == 2
            self.leaves.insert(place, (path, 2, (last + 1).to_bytes(4, "big")) if sequence else (path, 1, b""))
        return at

    def add(self, tag, path, value):
        known = not tag >> 16 & 1 and (dictionary_has_tag(tag) or repeater_has_tag(tag))
        left_out = tag & 0xFFFF == 0 and len(value) <= 4
        if len(path) == 4:
            self.top[tag] = value
            left_out |= tag in PIXELS or len(value) <= LEFT_OUT.get(tag, -1) or (tag == 0xFFFCFFFC and not any(value))
        if not left_out:
            self.leaves.append((path, 1, value.rstrip(b"\0 ") if known and dictionary_VR(tag) in TEXT else value))

    def frames(self, listed, form):  # where the samples are canonical as they stand
        if not any(tag in self.top for tag in PIXELS):
            return []
        tags = (0x280010, 0x280011, 0x280002, 0x280006, 0x280100, 0x280101, 0x280103)
        values = (self.top.get(tag, b"") for tag in tags)
        rows, columns, samples, planar, bits, stored, signed = (int.from_bytes(v[:2], "little") for v in values)
        rare = planar or bits % 8 or (signed and stored < bits) or self.top.get(0x00280004, b"")[:3] == b"YBR"
        if rare or form == "encoded" or PIXELS[0] not in self.top or any(leaf["kind"] == 4 for leaf in listed):
            raise NotImplementedError("pixels of a rarer form: use `orthanc-ledger verify-receipt`")
        value, size, count = self.top[PIXELS[0]], rows * columns * samples * bits // 8, int(self.top.get(0x280008) or 1)
        need(not any(value[size * count :]), "file: bytes behind the last frame")
        return [(n.to_bytes(4, "big"), 3, value[n * size : (n + 1) * size]) for n in range(count)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("receipt", type=Path)
    parser.add_argument("file", type=Path, nargs="?")
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--trust", type=Path, action="append")
    whom.add_argument("--peers", type=lambda text: text.partition("=")[::2], action="append", metavar="MSPID=CA")
    args = parser.parse_args()
    receipt = json.loads(args.receipt.read_bytes())
    content, data = receipt["content"], bytes.fromhex(receipt["record"])
    evidence, kind = receipt["evidence"], "embedded" if args.trust else "fabric"
    need(evidence["kind"] == kind, "evidence: --trust asks for one organisation's log, --peers for peers' signatures")
    files = {name: Path(path).read_bytes() for name, path in args.peers or enumerate(args.trust)}
    believed = {name: x509.load_pem_x509_certificate(pem) for name, pem in files.items()}
    pinned = [(believed[n], load_pem_public_key(KEY + rest)) for n in files for rest in files[n].split(KEY)[1:]]
    keys = {ca.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for ca in believed.values()}
    need(args.trust or len(keys) == len(args.peers), "--peers: an organisation, or a CA's key, is named twice")
    anchor, time, cas = (check_entry if args.trust else check_answer)(evidence, believed, pinned)
    record, shown, leaf = dag_cbor.decode(data), [], sha256(b"\0" + data).digest()
    check_inclusion("record", leaf, receipt["index"], anchor["count"], receipt["proof"], anchor["root"])
    need((receipt["v"], content["kind"]) == (1, "file" if args.file else "elements"), "receipt: of another kind")
    if args.file:
        file = File(args.file.read_bytes(), content["metadata"])
        check_tree("pixel", file.frames(content["pixels"], record["pixel_form"]), content["pixels"], record)
        check_tree("metadata", file.leaves, content["metadata"], record)
    else:
        shown = list(check_elements(content["elements"], record["metadata_leaves"], record["metadata_root"]))
    print("proven - anchored at", time, "under")
    print(*(f"{c.subject.rfc4514_string()!a}, SHA-256 {c.fingerprint(SHA256()).hex()}" for c in cas), *shown, sep="\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception as error:  # whatever hostile bytes make the libraries raise
        print(f"NOT proven: {error!r}", file=sys.stderr)
        sys.exit(2 if isinstance(error, NotImplementedError) else 1)
