"""Many revocations at once, and what a relying party sees of one."""
import threading
import time

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

POLL_S = 0.005  # a relying party has no event to wait for: this is the figures' resolution
PATIENCE_S = 20


def fill_revocations(stack, first, end):
    """
    Revoked serials first … end - 1, spread over shards as real ones are. Without certificates: what an orphaned
    intent leaves behind. The server must be down.
    """
    with stack.db() as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT issuer_id FROM jitrca.issuer WHERE kind = 'issuing' ORDER BY issuer_id LIMIT 1")
        issuer = cursor.fetchone()[0]
        cursor.execute(
            "INSERT INTO jitrca.revocation (issuer_id, serial, reason, revoked_at, not_after)"
            " SELECT %s, '\\x40'::bytea || substr(d, 1, 1) || substr(int4send(m), 3) || substr(d, 2, 12),"
            " (ARRAY[1, 3, 4, 5])[1 + i %% 4], now() - interval '1 day' - i * interval '1 ms', now() + interval '300 days'"
            " FROM generate_series(%s, %s) AS i, LATERAL (SELECT sha256(int8send(i)) AS d) AS digest,"
            " (SELECT (extract(year FROM e) * 12 + extract(month FROM e) - 1)::int AS m"
            " FROM (SELECT now() + interval '300 days' AS e) AS t) AS month ORDER BY 2", (issuer, first, end - 1))
        cursor.execute("ANALYZE jitrca.revocation")
        # All lists are due, also the full one, which goes by the clock once it is large.
        cursor.execute("UPDATE jitrca.crl_scope SET wanted = wanted + 1, next_update = now()")
    return issuer


def settled(stack):
    """Every list is published that is wanted; a full list may wait for its clock."""
    return stack.query("SELECT count(*) FROM jitrca.crl_scope WHERE published < wanted AND scope <> -1"
                       " OR next_update IS NULL OR next_update <= now()")[0][0] == 0


class Party:
    """A relying party that watches one certificate."""

    def __init__(self, stack, body):
        self.base, self.ca = stack.http_url, body["ca"]
        self.serial = bytes.fromhex(body["serial"])
        self.shard = f"{self.base}/crl/{self.ca}/{body['serial'][2:4]}.crl"
        self.delta = f"{self.base}/crl/{self.ca}/delta.crl"
        self.request = ocsp_request(body)

    def lists(self, url):
        """Does this list have the serial? (A DER INTEGER of 16 octets: nothing else there looks like it.)"""
        answer = requests.get(url, timeout=10)
        return answer.status_code == 200 and b"\x02\x10" + self.serial in answer.content

    def ocsp_status(self):
        answer = requests.post(f"{self.base}/ocsp", data=self.request, timeout=10,
                               headers={"Content-Type": "application/ocsp-request"})
        if answer.status_code != 200:
            return None
        response = ocsp.load_der_ocsp_response(answer.content)
        good = response.response_status == ocsp.OCSPResponseStatus.SUCCESSFUL
        return response.certificate_status.name if good else response.response_status.name


def ocsp_request(body, nonce=None):
    leaf = x509.load_pem_x509_certificate(body["certificate"].encode())
    issuer = x509.load_pem_x509_certificate(body["chain"].encode())
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA1())
    if nonce:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(serialization.Encoding.DER)


def watch(start, targets):
    """{name: seconds from start until its condition held}, all watched at once; None: never."""
    took = dict.fromkeys(targets)

    def until(name, condition):
        while time.monotonic() - start < PATIENCE_S:
            if condition():
                took[name] = time.monotonic() - start
                return
            time.sleep(POLL_S)  # a relying party has no event to wait for; this is the resolution
    threads = [threading.Thread(target=until, args=item) for item in targets.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took
