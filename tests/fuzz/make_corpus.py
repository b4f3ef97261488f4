#!/usr/bin/python3
"""Makes the seeds of the fuzz targets under tests/fuzz/corpus from the kept CSRs of the unit tests."""

import base64
import glob
import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))
CSR = os.path.join(HERE, "..", "unit", "ca", "csr")


def put(target, name, data):
    folder = os.path.join(HERE, "corpus", target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


def main():
    keep = ("p256.pem", "p256_extensions.pem", "p384_sha384.pem", "rsa2048.pem", "ed25519.pem",
            "p256_challenge.pem", "p256_multivalued_rdn.pem")
    for path in sorted(glob.glob(os.path.join(CSR, "*", "*.pem"))):
        name = os.path.basename(path)
        if os.path.basename(os.path.dirname(path)) == "good" and name not in keep:
            continue
        with open(path, "rb") as f:
            text = f.read()
        if name.startswith("csr_not_pem") or name == "p256.pem":
            put("pem", name, text.replace(b"CERTIFICATE REQUEST", b"X"))
        block = re.fullmatch(rb"\s*-----BEGIN [A-Z ]+-----\s([A-Za-z0-9+/=\s]+)-----END [A-Z ]+-----\s*", text)
        if not block or len(text) > 3000:
            continue
        try:
            der = base64.b64decode(block.group(1))
        except ValueError:
            continue
        if name.startswith(("csr_key", "csr_malformed")) or name in keep:
            put("csr", name[:-4] + ".der", der)
        if name.startswith("csr_malformed") and len(der) < 400:
            put("der", name[:-4] + ".der", b"\xa3" + der)


if __name__ == "__main__":
    main()
