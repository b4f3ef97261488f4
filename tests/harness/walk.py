"""An independent walk over all that clients hold, all rows and all CRLs; it shares no code with the program."""
import hashlib

import requests
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.x509.oid import NameOID


def verify_signed(issuer, signature, data, hash_algorithm):
    public = issuer.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, data, ec.ECDSA(hash_algorithm))
    else:
        public.verify(signature, data, padding.PKCS1v15(), hash_algorithm)


def _issuers(stack):
    return {row[0]: x509.load_der_x509_certificate(bytes(row[1])) for row in stack.query(
        "SELECT issuer_id, certificate FROM jitrca.issuer WHERE kind = 'issuing'")}


def walk(stack, receipts):
    """
    receipts: {device id: PEM of the certificate that its client was told}. Raises AssertionError with what is
    wrong: of the rows, of the receipts, of claims that nobody holds any more, and of the lists.
    """
    issuers = _issuers(stack)
    rows = stack.query("SELECT issuer_id, serial, sha256, der, status, device_id, of_device"
                       " FROM jitrca.certificate")
    by_sha, serials, live = {}, set(), {}
    for issuer_id, serial, sha256, der, status, device_id, of_device in rows:
        serial, sha256, der = bytes(serial), bytes(sha256), bytes(der)
        assert (issuer_id, serial) not in serials, f"serial {serial.hex()} twice"
        serials.add((issuer_id, serial))
        leaf = x509.load_der_x509_certificate(der)
        assert hashlib.sha256(der).digest() == sha256
        assert leaf.serial_number == int.from_bytes(serial, "big")
        verify_signed(issuers[issuer_id], leaf.signature, leaf.tbs_certificate_bytes, leaf.signature_hash_algorithm)
        by_sha[sha256] = (serial, status, device_id)
        if of_device and status == "active":  # servers and principals may hold several
            live.setdefault(device_id, []).append(serial.hex())
    for name, pem in receipts.items():
        leaf = x509.load_pem_x509_certificate(pem.encode())
        row = by_sha.get(hashlib.sha256(leaf.public_bytes(serialization.Encoding.DER)).digest())
        assert row is not None, f"{name}: its certificate is not in the database"
        assert row[1:] == ("active", name), f"{name}: its row says {row[1:]}"
        assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name
    for table in ("device_slot", "key_claim"):
        left = stack.query(f"SELECT count(*) FROM jitrca.{table} WHERE claim_serial IS NOT NULL")[0][0]
        assert left == 0, f"{table}: {left} claims of issuances that are over"
    for manifest, used, issued in stack.query(
            "SELECT m.manifest_id, m.used, (SELECT count(*) FROM jitrca.certificate c WHERE c.manifest_id ="
            " m.manifest_id) FROM jitrca.manifest m"):
        assert used == issued, f"manifest {manifest}: {used} charged, {issued} issued"
    return {"certificates": len(rows), "receipts": len(receipts), "lists": walk_lists(stack, issuers),
            "live_twice": {device: held for device, held in live.items() if len(held) > 1}}


def walk_lists(stack, issuers):
    """Every list that was ever published: signed, its number growing, no entry lost that is not lifted."""
    last = {}
    rows = stack.query("SELECT l.issuer_id, l.scope, l.number, l.base, l.length, l.sha256,"
                       " string_agg(p.octets, ''::bytea ORDER BY p.piece) FROM jitrca.crl l"
                       " LEFT JOIN jitrca.crl_piece p USING (issuer_id, scope, number)"
                       " GROUP BY l.issuer_id, l.scope, l.number ORDER BY l.issuer_id, l.scope, l.number")
    for issuer_id, scope, number, base, length, sha256, der in rows:
        der = bytes(der)
        assert len(der) == length and hashlib.sha256(der).digest() == bytes(sha256)
        crl = x509.load_der_x509_crl(der)
        assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == number
        verify_signed(issuers[issuer_id], crl.signature, crl.tbs_certlist_bytes, crl.signature_hash_algorithm)
        listed = {entry.serial_number for entry in crl}
        if scope >= 0:
            assert all(serial.to_bytes(16, "big")[1] == scope for serial in listed), f"shard {scope}: a stranger"
        if scope == -2:
            indicator = crl.extensions.get_extension_for_class(x509.DeltaCRLIndicator)
            assert indicator.critical and indicator.value.crl_number == base <= number
        key = (issuer_id, scope, base)
        assert listed >= last.get(key, set()), f"scope {scope}, number {number}: an entry was lost"
        last[key] = listed
    return len(rows)


def orphans_on_crl(stack):
    """
    Serials that were revoked without a certificate row, and those of them that are missing on the full list
    or on their shard, as both are served.
    """
    rows = stack.query("SELECT r.serial FROM jitrca.revocation r LEFT JOIN jitrca.certificate c"
                       " ON c.issuer_id = r.issuer_id AND c.serial = r.serial WHERE c.serial IS NULL")
    ca_id = stack.query("SELECT ca_id FROM jitrca.issuer WHERE kind = 'issuing'")[0][0]
    orphaned = {bytes(row[0]) for row in rows}
    missing = set()
    for path in (f"{ca_id}.crl", *(f"{ca_id}/{shard:02x}.crl" for shard in {serial[1] for serial in orphaned})):
        answer = requests.get(f"{stack.http_url}/crl/{path}", timeout=10)
        if answer.status_code != 200:
            return orphaned, orphaned
        listed = {entry.serial_number.to_bytes(16, "big") for entry in x509.load_der_x509_crl(answer.content)}
        shard = None if "/" not in path else int(path[-6:-4], 16)
        missing |= {serial for serial in orphaned if shard in (None, serial[1])} - listed
    return orphaned, missing
