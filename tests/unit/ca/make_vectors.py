#!/usr/bin/python3
"""Makes the kept CSRs under tests/unit/ca/csr: good/NAME.pem, and bad/CODE--WHAT.pem, where CODE is
the code that reading the file must give. Keys are derived from fixed numbers and ECDSA signs
deterministically, so a second run changes nothing but where RSA keys are generated; those are kept
in the files themselves, so run this only to add cases. All keys here are made for the tests.

Usage: make_vectors.py [DIRECTORY]
"""

import base64
import hashlib
import os
import sys

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

HERE = os.path.join(sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__)), "csr")


# ---- DER by hand: what a library would refuse to make, we need ----

def length(n):
    if n < 0x80:
        return bytes([n])
    octets = n.to_bytes((n.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


def tlv(tag, *parts):
    body = b"".join(parts)
    return bytes([tag]) + length(len(body)) + body


def seq(*parts):
    return tlv(0x30, *parts)


def der_set(*parts):
    return tlv(0x31, *parts)


def integer(n):
    return tlv(2, n.to_bytes(n.bit_length() // 8 + 1, "big"))


def oid(dotted):
    arcs = [int(a) for a in dotted.split(".")]
    out = bytearray()
    for arc in [arcs[0] * 40 + arcs[1]] + arcs[2:]:
        chunk = [arc & 0x7f]
        while arc > 0x7f:
            arc >>= 7
            chunk.append(arc & 0x7f | 0x80)
        out += bytes(reversed(chunk))
    return tlv(6, bytes(out))


def bits(octets, unused=0):
    return tlv(3, bytes([unused]), octets)


NULL = b"\x05\x00"
ECDSA_SHA256 = seq(oid("1.2.840.10045.4.3.2"))
ECDSA_SHA384 = seq(oid("1.2.840.10045.4.3.3"))
ECDSA_SHA512 = seq(oid("1.2.840.10045.4.3.4"))
ECDSA_SHA1 = seq(oid("1.2.840.10045.4.1"))
RSA_SHA256 = seq(oid("1.2.840.113549.1.1.11"), NULL)
RSA_SHA1 = seq(oid("1.2.840.113549.1.1.5"), NULL)
RSA_MD5 = seq(oid("1.2.840.113549.1.1.4"), NULL)
P256 = "1.2.840.10045.3.1.7"
P384 = "1.3.132.0.34"


# ---- keys ----

def seed(text):
    return int.from_bytes(hashlib.sha512(text.encode()).digest()[:40], "big")


ORDER_P256 = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551


def ec_key(curve, text):
    return ec.derive_private_key(seed(text) % (2 ** 190) + 1, curve)


KEY = ec_key(ec.SECP256R1(), "device")
KEY384 = ec_key(ec.SECP384R1(), "device 384")
ED = ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"ed").digest())


def point(key):
    return key.public_key().public_bytes(serialization.Encoding.X962,
                                         serialization.PublicFormat.UncompressedPoint)


def ec_spki(curve_oid, octets):
    return seq(seq(oid("1.2.840.10045.2.1"), oid(curve_oid)), bits(octets))


def rsa_spki(n, e):
    return seq(seq(oid("1.2.840.113549.1.1.1"), NULL), bits(seq(integer(n), integer(e))))


def spki(key):
    return key.public_key().public_bytes(serialization.Encoding.DER,
                                         serialization.PublicFormat.SubjectPublicKeyInfo)


# Deterministic ECDSA (RFC 6979 is not in this library's older versions): k from the message.
def ecdsa(key, data, name="sha256"):
    digest = hashlib.new(name, data).digest()
    if not isinstance(key.curve, ec.SECP256R1):
        algorithm = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}[name]
        return key.sign(digest, ec.ECDSA(Prehashed(algorithm)))
    n, d = ORDER_P256, key.private_numbers().private_value
    k = int.from_bytes(hashlib.sha512(d.to_bytes(32, "big") + digest).digest(), "big") % (n - 1) + 1
    r = ec.derive_private_key(k, key.curve).public_key().public_numbers().x % n
    s = pow(k, -1, n) * (int.from_bytes(digest[:32], "big") + r * d) % n
    return seq(integer(r), integer(s))


# ---- requests ----

def name(*pairs):
    return seq(*[der_set(seq(oid(o), tlv(0x0c, v.encode() if isinstance(v, str) else v)))
                 for o, v in pairs])


SUBJECT = name(("2.5.4.10", "Example"), ("2.5.4.3", "device-1"))


def extension(dotted, value, critical=False):
    return seq(oid(dotted), b"\x01\x01\xff" if critical else b"", tlv(4, value))


def ext_request(*extensions, request_oid="1.2.840.113549.1.9.14"):
    return seq(oid(request_oid), der_set(seq(*extensions)))


SAN = extension("2.5.29.17", seq(tlv(0x82, b"device-1.example.com")))
KU = extension("2.5.29.15", b"\x03\x02\x07\x80", True)
EKU = extension("2.5.29.37", seq(oid("1.3.6.1.5.5.7.3.2")))
BC_CA = extension("2.5.29.19", seq(b"\x01\x01\xff"), True)
CHALLENGE = seq(oid("1.2.840.113549.1.9.7"), der_set(tlv(0x0c, b"secret")))


def info(spki_der, attributes=(), subject=SUBJECT, version=0, tail=b"", attributes_der=None):
    return seq(integer(version), subject, spki_der,
               tlv(0xa0, *attributes) if attributes_der is None else attributes_der, tail)


def csr(info_der, signature, algorithm=ECDSA_SHA256, tail=b""):
    return seq(info_der, algorithm, bits(signature), tail)


def p256(attributes=(), key=KEY, **how):
    body = info(spki(key), attributes, **how)
    return csr(body, ecdsa(key, body))


def of_spki(spki_der, algorithm=ECDSA_SHA256):
    """A request for a key that is refused before its signature is looked at."""
    body = info(spki_der)
    return csr(body, ecdsa(KEY, body), algorithm)


def rsa_csr(key, algorithm=RSA_SHA256, digest=hashes.SHA256()):
    body = info(spki(key))
    return csr(body, key.sign(body, padding.PKCS1v15(), digest), algorithm)


def pem(der, label="CERTIFICATE REQUEST", width=64):
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[i:i + width] for i in range(0, len(text), width))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"


def write(folder, file_name, text):
    path = os.path.join(HERE, folder, file_name + ".pem")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(text if isinstance(text, bytes) else text.encode())


def good(what, text):
    write("good", what, text)


def bad(code, what, text):
    write("bad", f"{code}--{what}", text)


def main():
    plain = p256()
    rsa_keys = {n: rsa.generate_private_key(65537, n) for n in (1024, 2048, 2056, 3072, 4096)}

    good("p256", pem(plain))
    good("p256_new_label", pem(plain, "NEW CERTIFICATE REQUEST"))
    good("p256_crlf", pem(plain).replace("\n", "\r\n"))
    good("p256_spaces_around", "\n\n  " + pem(plain) + "\t\n \n")
    good("p256_one_line", pem(plain, width=10 ** 6))
    good("p256_no_last_newline", pem(plain).rstrip("\n"))
    good("p256_empty_subject", pem(p256(subject=seq())))
    good("p256_nul_in_subject", pem(p256(subject=name(("2.5.4.3", b"dev\0ice\n")))))
    good("p256_multivalued_rdn", pem(p256(subject=seq(der_set(
        seq(oid("2.5.4.3"), tlv(0x0c, b"a")), seq(oid("2.5.4.5"), tlv(0x13, b"b")))))))
    good("p256_challenge", pem(p256([CHALLENGE])))
    good("p256_extensions", pem(p256([ext_request(KU, EKU, SAN)])))
    good("p256_extensions_microsoft", pem(p256([ext_request(SAN, request_oid="1.3.6.1.4.1.311.2.1.14")])))
    good("p256_extensions_ca", pem(p256([ext_request(BC_CA)])))
    good("p256_extensions_none", pem(p256([ext_request()])))
    good("p256_unknown_attribute", pem(p256([seq(oid("1.3.6.1.4.1.99999.1"), der_set(integer(7), integer(8)))])))
    good("p256_long", pem(p256([seq(oid("1.3.6.1.4.1.99999.1"), der_set(tlv(4, bytes(7700))))])))
    for n, alg in (("sha384", ECDSA_SHA384), ("sha512", ECDSA_SHA512)):
        body = info(spki(KEY))
        good(f"p256_{n}", pem(csr(body, ecdsa(KEY, body, n), alg)))
    for n, alg in (("sha256", ECDSA_SHA256), ("sha384", ECDSA_SHA384)):
        body = info(spki(KEY384))
        good(f"p384_{n}", pem(csr(body, ecdsa(KEY384, body, n), alg)))
    body = info(spki(ED))
    good("ed25519", pem(csr(body, ED.sign(body), seq(oid("1.3.101.112")))))
    for n in (2048, 3072, 4096):
        good(f"rsa{n}", pem(rsa_csr(rsa_keys[n])))
    good("rsa2048_sha512", pem(rsa_csr(rsa_keys[2048], seq(oid("1.2.840.113549.1.1.13"), NULL), hashes.SHA512())))
    good("rsa2048_e_64bit", pem(rsa_csr_e(2 ** 64 - 59)))

    # not PEM
    text = pem(plain)
    bad("csr_not_pem", "empty", "")
    bad("csr_not_pem", "der", plain)
    bad("csr_not_pem", "certificate_label", pem(plain, "CERTIFICATE"))
    bad("csr_not_pem", "private_key_label", pem(plain, "PRIVATE KEY"))
    bad("csr_not_pem", "two_blocks", text + text)
    bad("csr_not_pem", "text_before", "subject=CN = device\n" + text)
    bad("csr_not_pem", "text_behind", text + "x")
    bad("csr_not_pem", "no_end", text[:text.index("-----END")])
    bad("csr_not_pem", "labels_differ", text.replace("END CERTIFICATE REQUEST", "END NEW CERTIFICATE REQUEST"))
    bad("csr_not_pem", "foreign_character", text[:110] + "*" + text[111:])
    bad("csr_not_pem", "nul_inside", (text[:110] + "\0" + text[111:]))
    bad("csr_not_pem", "digit_missing", text[:110] + text[111:])
    bad("csr_not_pem", "padding_inside", text[:110] + "=" + text[111:])
    bad("csr_not_pem", "three_pads", "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\nA===\n-----END CERTIFICATE REQUEST-----\n")
    bad("csr_not_pem", "unused_bits", "-----BEGIN CERTIFICATE REQUEST-----\nMB==\n-----END CERTIFICATE REQUEST-----\n")
    bad("csr_not_pem", "unused_bits_one_pad", "-----BEGIN CERTIFICATE REQUEST-----\nMAB=\n-----END CERTIFICATE REQUEST-----\n")
    bad("csr_not_pem", "empty_block", "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n")
    bad("csr_not_pem", "header_inside", text.replace("-----\n", "-----\nProc-Type: 4,ENCRYPTED\n\n", 1))
    bad("csr_not_pem", "begin_only", "-----BEGIN ")
    bad("csr_not_pem", "label_too_long", pem(plain, "X" * 80))
    bad("csr_not_pem", "no_line_end_after_begin", text.replace("-----\n", "-----", 1))

    # too large
    bad("csr_too_large", "der", pem(p256([seq(oid("1.3.6.1.4.1.99999.1"), der_set(tlv(4, bytes(9000))))])))
    bad("csr_too_large", "white_space", text + " " * 20000)

    # malformed
    body = info(spki(KEY))
    sig = ecdsa(KEY, body)
    bad("csr_malformed", "trailing_octet", pem(plain + b"\0"))
    bad("csr_malformed", "cut_off", pem(plain[:-1]))
    bad("csr_malformed", "one_octet", pem(b"\x30"))
    bad("csr_malformed", "not_a_sequence", pem(b"\x31" + plain[1:]))
    bad("csr_malformed", "indefinite_length", pem(b"\x30\x80" + plain[4:] + b"\0\0"))
    bad("csr_malformed", "long_form_not_minimal", pem(b"\x30\x83\x00" + plain[2:]))
    bad("csr_malformed", "length_of_five_octets", pem(b"\x30\x85\x01\x00\x00\x00\x00" + plain[4:]))
    bad("csr_malformed", "length_cut_off", pem(b"\x30\x84\x01"))
    bad("csr_malformed", "high_tag_number", pem(seq(b"\x3f\x81\x00\x00", plain)))
    bad("csr_malformed", "outer_tail", pem(csr(body, sig, tail=NULL)))
    bad("csr_malformed", "info_tail", pem(p256(tail=NULL)))
    bad("csr_malformed", "version_1", pem(p256(version=1)))
    bad("csr_malformed", "version_negative", pem(csr(b := body.replace(b"\x02\x01\x00", b"\x02\x01\xff", 1), ecdsa(KEY, b))))
    b = seq(b"\x02\x02\x00\x00", SUBJECT, spki(KEY), tlv(0xa0))
    bad("csr_malformed", "version_not_minimal", pem(csr(b, ecdsa(KEY, b))))
    b = seq(b"\x02\x00", SUBJECT, spki(KEY), tlv(0xa0))
    bad("csr_malformed", "version_empty", pem(csr(b, ecdsa(KEY, b))))
    b = seq(integer(2 ** 70), SUBJECT, spki(KEY), tlv(0xa0))
    bad("csr_malformed", "version_huge", pem(csr(b, ecdsa(KEY, b))))
    bad("csr_malformed", "no_attributes", pem(p256(attributes_der=b"")))
    bad("csr_malformed", "attributes_as_set", pem(p256(attributes_der=der_set(CHALLENGE))))
    bad("csr_malformed", "attribute_twice", pem(p256([CHALLENGE, CHALLENGE])))
    bad("csr_malformed", "attribute_without_value", pem(p256([seq(oid("1.2.840.113549.1.9.7"), der_set())])))
    bad("csr_malformed", "attribute_tail", pem(p256([seq(oid("1.2.840.113549.1.9.7"), der_set(NULL), NULL)])))
    bad("csr_malformed", "too_many_attributes", pem(p256([seq(oid(f"1.3.6.1.4.1.99999.{i}"), der_set(NULL)) for i in range(17)])))
    bad("csr_malformed", "extension_twice", pem(p256([ext_request(SAN, SAN)])))
    bad("csr_malformed", "two_extension_requests", pem(p256([ext_request(SAN), ext_request(KU, request_oid="1.3.6.1.4.1.311.2.1.14")])))
    bad("csr_malformed", "extensions_two_values", pem(p256([seq(oid("1.2.840.113549.1.9.14"), der_set(seq(KU), seq(SAN)))])))
    bad("csr_malformed", "too_many_extensions", pem(p256([ext_request(*[extension(f"1.3.6.1.4.1.99999.{i}", NULL) for i in range(33)])])))
    bad("csr_malformed", "critical_false_written", pem(p256([ext_request(seq(oid("2.5.29.17"), b"\x01\x01\x00", tlv(4, seq())))])))
    bad("csr_malformed", "critical_is_one", pem(p256([ext_request(seq(oid("2.5.29.17"), b"\x01\x01\x01", tlv(4, seq())))])))
    bad("csr_malformed", "extension_without_value", pem(p256([ext_request(seq(oid("2.5.29.17")))])))
    bad("csr_malformed", "extension_tail", pem(p256([ext_request(seq(oid("2.5.29.17"), tlv(4, seq()), NULL))])))
    bad("csr_malformed", "oid_empty", pem(p256([seq(b"\x06\x00", der_set(NULL))])))
    bad("csr_malformed", "oid_cut_off", pem(p256([seq(b"\x06\x01\x80", der_set(NULL))])))
    bad("csr_malformed", "oid_not_minimal", pem(p256([seq(b"\x06\x03\x55\x80\x01", der_set(NULL))])))
    bad("csr_malformed", "subject_not_a_name", pem(p256(subject=tlv(0x0c, b"device-1"))))
    bad("csr_malformed", "subject_empty_rdn", pem(p256(subject=seq(der_set()))))
    bad("csr_malformed", "subject_value_missing", pem(p256(subject=seq(der_set(seq(oid("2.5.4.3")))))))
    bad("csr_malformed", "subject_tail", pem(p256(subject=seq(der_set(seq(oid("2.5.4.3"), NULL, NULL))))))
    bad("csr_malformed", "signature_unused_bits", pem(seq(body, ECDSA_SHA256, bits(sig, 1))))
    bad("csr_malformed", "signature_as_octets", pem(seq(body, ECDSA_SHA256, tlv(4, sig))))
    bad("csr_malformed", "signature_missing", pem(seq(body, ECDSA_SHA256)))
    bad("csr_malformed", "signature_no_octets", pem(seq(body, ECDSA_SHA256, tlv(3))))
    bad("csr_malformed", "spki_bits_missing", pem(of_spki(seq(seq(oid("1.2.840.10045.2.1"), oid(P256))))))
    bad("csr_malformed", "spki_tail", pem(of_spki(seq(seq(oid("1.2.840.10045.2.1"), oid(P256)), bits(point(KEY)), NULL))))
    bad("csr_malformed", "spki_curve_tail", pem(of_spki(seq(seq(oid("1.2.840.10045.2.1"), oid(P256), NULL), bits(point(KEY))))))
    n2048 = rsa_keys[2048].public_key().public_numbers().n
    bad("csr_malformed", "rsa_parameters_absent", pem(of_spki(seq(seq(oid("1.2.840.113549.1.1.1")), bits(seq(integer(n2048), integer(65537)))))))
    bad("csr_malformed", "rsa_parameters_not_null", pem(of_spki(seq(seq(oid("1.2.840.113549.1.1.1"), b"\x05\x01\x00"), bits(seq(integer(n2048), integer(65537)))))))
    bad("csr_malformed", "rsa_tail", pem(of_spki(seq(seq(oid("1.2.840.113549.1.1.1"), NULL), bits(seq(integer(n2048), integer(65537), NULL))))))
    bad("csr_malformed", "rsa_trailing", pem(of_spki(seq(seq(oid("1.2.840.113549.1.1.1"), NULL), bits(seq(integer(n2048), integer(65537)) + b"\0")))))
    bad("csr_malformed", "rsa_negative_modulus", pem(of_spki(seq(seq(oid("1.2.840.113549.1.1.1"), NULL), bits(seq(tlv(2, n2048.to_bytes(256, "big")), integer(65537)))))))
    bad("csr_malformed", "ed25519_parameters", pem(of_spki(seq(seq(oid("1.3.101.112"), NULL), bits(bytes(32))))))

    # signature
    bad("csr_bad_signature", "other_message", pem(csr(body, ecdsa(KEY, b"x"))))
    bad("csr_bad_signature", "other_key", pem(csr(body, ecdsa(ec_key(ec.SECP256R1(), "other"), body))))
    bad("csr_bad_signature", "no_proof", pem(csr(body, b"")))
    bad("csr_bad_signature", "r_and_s_zero", pem(csr(body, seq(integer(0), integer(0)))))
    bad("csr_bad_signature", "trailing_octet", pem(csr(body, sig + b"\0")))
    bad("csr_bad_signature", "ber_length", pem(csr(body, b"\x30\x81" + sig[1:])))
    bad("csr_bad_signature", "s_over_order", pem(csr(body, seq(integer(1), integer(ORDER_P256 + 1)))))
    flipped = p256([CHALLENGE]).replace(b"secret", b"Secret")
    bad("csr_bad_signature", "attribute_changed", pem(flipped))
    key2048 = rsa_keys[2048]
    rsa_body = info(spki(key2048))
    rsa_sig = key2048.sign(rsa_body, padding.PKCS1v15(), hashes.SHA256())
    bad("csr_bad_signature", "rsa_bit_flipped", pem(csr(rsa_body, rsa_sig[:-1] + bytes([rsa_sig[-1] ^ 1]), RSA_SHA256)))
    bad("csr_bad_signature", "rsa_short", pem(csr(rsa_body, rsa_sig[:-1], RSA_SHA256)))
    bad("csr_bad_signature", "rsa_pss_as_pkcs1", pem(csr(rsa_body, key2048.sign(rsa_body, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()), RSA_SHA256)))
    ed_body = info(spki(ED))
    bad("csr_bad_signature", "ed25519_zero", pem(csr(ed_body, bytes(64), seq(oid("1.3.101.112")))))
    body384 = info(spki(KEY384))
    bad("csr_bad_signature", "p384_hash_of_other_length", pem(csr(body384, ecdsa(KEY384, body384, "sha256"), ECDSA_SHA384)))

    # hash and algorithm
    bad("csr_weak_hash", "ecdsa_sha1", pem(csr(body, sig, ECDSA_SHA1)))
    bad("csr_weak_hash", "rsa_sha1", pem(rsa_csr(key2048, RSA_SHA1, hashes.SHA1())))
    bad("csr_weak_hash", "rsa_md5", pem(csr(rsa_body, rsa_sig, RSA_MD5)))
    bad("csr_weak_hash", "rsa_md2", pem(csr(rsa_body, rsa_sig, seq(oid("1.2.840.113549.1.1.2"), NULL))))
    bad("csr_signature_algorithm", "unknown", pem(csr(body, sig, seq(oid("1.2.3.4")))))
    bad("csr_signature_algorithm", "rsa_for_ec", pem(csr(body, sig, RSA_SHA256)))
    bad("csr_signature_algorithm", "ec_for_rsa", pem(csr(rsa_body, rsa_sig, ECDSA_SHA256)))
    bad("csr_signature_algorithm", "ed25519_for_ec", pem(csr(body, sig, seq(oid("1.3.101.112")))))
    bad("csr_signature_algorithm", "ecdsa_with_null", pem(csr(body, sig, seq(oid("1.2.840.10045.4.3.2"), NULL))))
    bad("csr_signature_algorithm", "rsa_without_null", pem(csr(rsa_body, rsa_sig, seq(oid("1.2.840.113549.1.1.11")))))
    bad("csr_signature_algorithm", "sha224", pem(csr(body, sig, seq(oid("1.2.840.10045.4.3.1")))))
    bad("csr_signature_algorithm", "rsa_pss", pem(csr(rsa_body, rsa_sig, seq(oid("1.2.840.113549.1.1.10"), seq()))))
    bad("csr_signature_algorithm", "empty", pem(csr(body, sig, seq())))

    # keys
    bad("csr_key_too_small", "rsa1024", pem(rsa_csr(rsa_keys[1024])))
    bad("csr_key_too_small", "rsa_modulus_zero", pem(of_spki(rsa_spki(0, 65537))))
    bad("csr_key_too_small", "rsa_2047", pem(of_spki(rsa_spki(n2048 >> 1 | 1, 65537))))
    bad("csr_key_too_small", "p224", pem(of_spki(ec_spki("1.3.132.0.33", b"\x04" + bytes(56)))))
    bad("csr_key_too_small", "p192", pem(of_spki(ec_spki("1.2.840.10045.3.1.1", b"\x04" + bytes(48)))))
    bad("csr_key_type", "rsa2056", pem(rsa_csr(rsa_keys[2056])))
    bad("csr_key_type", "secp256k1", pem(of_spki(spki(ec_key(ec.SECP256K1(), "k1")))))
    bad("csr_key_type", "p521", pem(of_spki(spki(ec_key(ec.SECP521R1(), "521")))))
    bad("csr_key_type", "x25519", pem(of_spki(seq(seq(oid("1.3.101.110")), bits(bytes(32))))))
    bad("csr_key_type", "ed448", pem(of_spki(seq(seq(oid("1.3.101.113")), bits(bytes(57))))))
    bad("csr_key_type", "dsa", pem(of_spki(seq(seq(oid("1.2.840.10040.4.1"), NULL), bits(integer(5))))))
    bad("csr_key_type", "ec_explicit_parameters", pem(of_spki(seq(seq(oid("1.2.840.10045.2.1"), explicit_p256()), bits(point(KEY))))))
    bad("csr_key_type", "ec_implicit_curve", pem(of_spki(seq(seq(oid("1.2.840.10045.2.1"), NULL), bits(point(KEY))))))
    off = bytearray(point(KEY))
    off[-1] ^= 1
    bad("csr_key_invalid", "p256_off_curve", pem(of_spki(ec_spki(P256, bytes(off)))))
    bad("csr_key_invalid", "p256_zero", pem(of_spki(ec_spki(P256, b"\x04" + bytes(64)))))
    bad("csr_key_invalid", "p256_over_field", pem(of_spki(ec_spki(P256, b"\x04" + b"\xff" * 64))))
    bad("csr_key_invalid", "p256_infinity", pem(of_spki(ec_spki(P256, b"\0"))))
    bad("csr_key_invalid", "p256_no_point", pem(of_spki(ec_spki(P256, b""))))
    bad("csr_key_invalid", "p256_short", pem(of_spki(ec_spki(P256, point(KEY)[:-1]))))
    compressed = KEY.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    bad("csr_key_invalid", "p256_compressed", pem(of_spki(ec_spki(P256, compressed))))
    bad("csr_key_invalid", "p256_hybrid", pem(of_spki(ec_spki(P256, bytes([6 | point(KEY)[-1] & 1]) + point(KEY)[1:]))))
    bad("csr_key_invalid", "p384_off_curve", pem(of_spki(ec_spki(P384, b"\x04" + bytes(95) + b"\x01"))))
    bad("csr_key_invalid", "p384_point_of_p256", pem(of_spki(ec_spki(P384, point(KEY)))))
    bad("csr_key_invalid", "rsa_e_1", pem(of_spki(rsa_spki(n2048, 1))))
    bad("csr_key_invalid", "rsa_e_0", pem(of_spki(rsa_spki(n2048, 0))))
    bad("csr_key_invalid", "rsa_e_3", pem(of_spki(rsa_spki(n2048, 3))))
    bad("csr_key_invalid", "rsa_e_even", pem(of_spki(rsa_spki(n2048, 65538))))
    bad("csr_key_invalid", "rsa_e_over_64_bits", pem(of_spki(rsa_spki(n2048, 2 ** 64 + 13))))
    bad("csr_key_invalid", "rsa_modulus_even", pem(of_spki(rsa_spki(n2048 - 1, 65537))))
    bad("csr_key_invalid", "rsa_modulus_times_small_prime", pem(of_spki(rsa_spki(n2048 - n2048 % 17 + (0 if (n2048 - n2048 % 17) % 2 else 17), 65537))))
    bad("csr_key_invalid", "ed25519_short", pem(of_spki(seq(seq(oid("1.3.101.112")), bits(bytes(31))))))


def explicit_p256():
    p = 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffff
    b = 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b
    g = bytes.fromhex("046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
                      "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")
    return seq(integer(1), seq(oid("1.2.840.10045.1.1"), integer(p)),
               seq(tlv(4, (p - 3).to_bytes(32, "big")), tlv(4, b.to_bytes(32, "big"))),
               tlv(4, g), integer(ORDER_P256), integer(1))


def rsa_csr_e(e):
    """RSA with an exponent that libraries do not offer: signed by hand (PKCS#1 v1.5)."""
    while True:
        numbers = rsa.generate_private_key(65537, 2048).private_numbers()
        p, q = numbers.p, numbers.q
        try:
            d = pow(e, -1, (p - 1) * (q - 1))
            break
        except ValueError:
            continue
    n = p * q
    body = info(rsa_spki(n, e))
    t = seq(seq(oid("2.16.840.1.101.3.4.2.1"), NULL), tlv(4, hashlib.sha256(body).digest()))
    padded = b"\0\x01" + b"\xff" * (256 - 3 - len(t)) + b"\0" + t
    signature = pow(int.from_bytes(padded, "big"), d, n).to_bytes(256, "big")
    return csr(body, signature, RSA_SHA256)


if __name__ == "__main__":
    main()
