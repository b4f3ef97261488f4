"""The audit log as a stranger verifies it: from docs/api.md alone, with Python's cryptography. A second opinion beside
`jitrca audit verify --offline` and `check-proof`; it shares no code with them."""
import base64
import hashlib
import json
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization


def blake(*parts):
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()


def merkle_root(leaves):
    """RFC 9162 2.1.1 with BLAKE2b-256."""
    if not leaves:
        return blake()
    if len(leaves) == 1:
        return blake(b"\0", leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return blake(b"\1", merkle_root(leaves[:split]), merkle_root(leaves[split:]))


def climb(leaf, index, count, path):
    """RFC 9162 2.1.3.2."""
    node, last = blake(b"\0", leaf), count - 1
    assert 0 <= index < count
    for step in path:
        assert last > 0
        if index & 1 or index == last:
            node = blake(b"\1", step, node)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = blake(b"\1", node, step)
        index, last = index >> 1, last >> 1
    assert last == 0
    return node


class Checkpoint:
    """A signed note (c2sp.org/signed-note), verified."""

    def __init__(self, note, key):
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        text, signatures = note.split("\n\n")
        self.text = text + "\n"
        name, signature = re.fullmatch("\u2014 (\\S+) (\\S+)\n", signatures).groups()
        octets = base64.b64decode(signature)
        assert octets[:4] == hashlib.sha256(name.encode() + b"\n\x01" + raw).digest()[:4]
        key.verify(octets[4:], self.text.encode())
        title, *lines = text.split("\n")
        assert title == "jitrca audit checkpoint v1"
        fields = [line.split(" ") for line in lines]
        assert [field[0] for field in fields[:6]] == ["log", "number", "previous", "at", "records", "root"]
        assert fields[0][1] == name == "jitrca-audit/" + hashlib.sha256(raw).hexdigest()[:16]
        self.number, self.previous = int(fields[1][1]), fields[2][1]
        self.at, self.records, self.root = fields[3][1], int(fields[4][1]), bytes.fromhex(fields[5][1])
        self.lanes = {int(lane): (int(seq), bytes.fromhex(head)) for word, lane, seq, head in fields[6:] if word == "lane"}


def load_key(pem):
    return serialization.load_pem_public_key(pem.encode() if isinstance(pem, str) else pem)


def read_notes(text, key):
    """[Checkpoint], each verified, and each naming the one before."""
    notes = re.findall("jitrca audit checkpoint v1\n.*?\n\n(?:\u2014 [^\n]*\n)+", text, re.S)
    assert "".join(notes) == text
    found = [Checkpoint(note, key) for note in notes]
    for before, after in zip(found, found[1:]):
        assert after.number > before.number and after.at >= before.at
        assert after.previous == hashlib.sha256(before.text.encode()).hexdigest()
    return found


def verify_export(lines, notes):
    """Raises AssertionError unless all holds. Returns the number of records."""
    chains = {}
    for line in lines[:-1]:
        record = json.loads(line)
        chain = chains.setdefault(record["lane"], [bytes(32)])
        assert record["seq"] == len(chain)
        chain.append(blake(chain[-1], record["body"].encode()))
        assert record["hash"] == chain[-1].hex()
        body = json.loads(record["body"])
        assert (body["lane"], body["seq"], body["items"]) == (record["lane"], record["seq"], len(record["items"]))
        assert body["items_root"] == merkle_root([item.encode() for item in record["items"]]).hex()
    assert json.loads(lines[-1]) == {"end": True, "records": len(lines) - 1, "lanes": len(chains)}
    covered = {}
    for note in notes:
        fresh = []
        for lane, (seq, head) in sorted(note.lanes.items()):
            assert chains[lane][seq] == head
            fresh += chains[lane][covered.get(lane, 0) + 1:seq + 1]
            covered[lane] = seq
        assert len(fresh) == note.records and merkle_root(fresh) == note.root
    return len(lines) - 1


def verify_proof(proof, key):
    """The record's body, as JSON; AssertionError or InvalidSignature otherwise."""
    assert proof["format"] == "jitrca audit proof v1"
    item, record = json.loads(proof["item"]), json.loads(proof["record"])
    assert item["object"] == "certificate:" + proof["certificate_id"]
    path = [bytes.fromhex(step) for step in proof["item_path"]]
    assert climb(proof["item"].encode(), proof["item_index"], proof["item_count"], path).hex() == record["items_root"]
    assert record["items"] == proof["item_count"]
    leaf = blake(bytes.fromhex(proof["previous"]), proof["record"].encode())
    checkpoint = Checkpoint(proof["checkpoint"], key)
    path = [bytes.fromhex(step) for step in proof["path"]]
    assert proof["count"] == checkpoint.records and climb(leaf, proof["index"], proof["count"], path) == checkpoint.root
    return record


__all__ = ["Checkpoint", "InvalidSignature", "load_key", "read_notes", "verify_export", "verify_proof"]
