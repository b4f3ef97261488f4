"""An independent walk over all that clients hold, all rows and all CRLs; it shares no code with the program."""
import hashlib

import requests
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding


def verify_signed(issuer, signature, data, hash_algorithm):
    public = issuer.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, data, ec.ECDSA(hash_algorithm))
    else:
        public.verify(signature, data, padding.PKCS1v15(), hash_algorithm)


def walk(stack, receipts):
    """receipts: {name: PEM of the certificate that the client was told}. Raises AssertionError with what is wrong."""
    issuers = {row[0]: x509.load_der_x509_certificate(bytes(row[1])) for row in stack.query(
        "SELECT issuer_id, certificate FROM jitrca.issuer WHERE kind = 'issuing'")}
    rows = stack.query("SELECT issuer_id, serial, sha256, der, status, device_id FROM jitrca.certificate")
    by_sha, serials = {}, set()
    for issuer_id, serial, sha256, der, status, device_id in rows:
        serial, sha256, der = bytes(serial), bytes(sha256), bytes(der)
        assert (issuer_id, serial) not in serials, f"serial {serial.hex()} twice"
        serials.add((issuer_id, serial))
        leaf = x509.load_der_x509_certificate(der)
        assert hashlib.sha256(der).digest() == sha256
        assert leaf.serial_number == int.from_bytes(serial, "big")
        verify_signed(issuers[issuer_id], leaf.signature, leaf.tbs_certificate_bytes, leaf.signature_hash_algorithm)
        by_sha[sha256] = (serial, status, device_id)
    for name, pem in receipts.items():
        der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)
        assert hashlib.sha256(der).digest() in by_sha, f"{name}: its certificate is not in the database"
    live = {}
    for serial, status, device_id in by_sha.values():
        if status == "active":
            live.setdefault(device_id, []).append(serial.hex())
    return {"certificates": len(rows), "receipts": len(receipts),
            "live_twice": {device: held for device, held in live.items() if len(held) > 1}}


def orphans_on_crl(stack):
    """Serials that were revoked without a certificate row: each must be on the full list."""
    rows = stack.query("SELECT r.serial FROM jitrca.revocation r LEFT JOIN jitrca.certificate c"
                       " ON c.issuer_id = r.issuer_id AND c.serial = r.serial WHERE c.serial IS NULL")
    ca_id = stack.query("SELECT ca_id FROM jitrca.issuer WHERE kind = 'issuing'")[0][0]
    crl = x509.load_der_x509_crl(requests.get(f"{stack.http_url}/crl/{ca_id}.crl", timeout=10).content)
    listed = {entry.serial_number for entry in crl}
    orphaned = {int.from_bytes(bytes(row[0]), "big") for row in rows}
    return orphaned, orphaned - listed
