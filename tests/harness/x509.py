"""Certificates made by `cryptography` for tests, and by openssl for those who do it by hand."""
import datetime
import hashlib
import subprocess

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


def now():
    return datetime.datetime.utcnow().replace(microsecond=0)


def new_key(kind="ec"):
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)


def name(common_name, organization=None):
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption()).decode()


def certificate_id(certificate):
    if isinstance(certificate, str):
        certificate = x509.load_pem_x509_certificate(certificate.encode())
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


class Authority:
    """A CA: self-signed, or issued by parent."""

    def __init__(self, common_name="Test CA", kind="ec", parent=None, ca=True, key_cert_sign=True, before=-DAY,
                 after=365 * DAY, key=None):
        self.key = key or new_key(kind)
        self.name = name(common_name)
        issuer = parent or self
        builder = (x509.CertificateBuilder().subject_name(self.name).issuer_name(issuer.name)
                   .public_key(self.key.public_key()).serial_number(x509.random_serial_number())
                   .not_valid_before(now() + before).not_valid_after(now() + after))
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        builder = builder.add_extension(x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=key_cert_sign, crl_sign=True, encipher_only=False,
            decipher_only=False), critical=True)
        self.certificate = builder.sign(issuer.key, hashes.SHA256())
        self.pem = pem(self.certificate)
        self.id = certificate_id(self.certificate)

    def issue(self, common_name, before=-DAY, after=30 * DAY, issuer=None, key=None):
        """A leaf's PEM. issuer: another name than our own, to be wrong on purpose."""
        key = key or new_key()
        return pem(x509.CertificateBuilder().subject_name(name(common_name)).issuer_name(issuer or self.name)
                   .public_key(key.public_key()).serial_number(x509.random_serial_number())
                   .not_valid_before(now() + before).not_valid_after(now() + after)
                   .sign(self.key, hashes.SHA256()))


def openssl(*arguments, cwd):
    subprocess.run(["openssl", *map(str, arguments)], cwd=cwd, check=True, capture_output=True, timeout=60)


def by_hand(directory, code, subject="/CN=Hand Made CA"):
    """What AWS's guide says to type: a CA, and a verification certificate for the registration code."""
    openssl("genrsa", "-out", "ca.key", "2048", cwd=directory)
    openssl("req", "-x509", "-new", "-key", "ca.key", "-sha256", "-days", "30", "-out", "ca.pem", "-subj", subject,
            cwd=directory)
    openssl("genrsa", "-out", "verification.key", "2048", cwd=directory)
    openssl("req", "-new", "-key", "verification.key", "-out", "verification.csr", "-subj", f"/CN={code}", cwd=directory)
    openssl("x509", "-req", "-in", "verification.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out",
            "verification.pem", "-days", "30", "-sha256", cwd=directory)
    return directory / "ca.pem", directory / "verification.pem"
