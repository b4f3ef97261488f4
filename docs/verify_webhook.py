#!/usr/bin/env python3
"""Verifies a notification of jitrca's (docs/notifications.md), by Python's standard library alone.

    from verify_webhook import Verifier, Refused
    verifier = Verifier(open("/etc/receiver/jitrca.secret").read().strip())
    message = verifier.check(request.headers, request.body)      # a dict, or Refused is raised

In order: the three headers are there; the timestamp is of now, five minutes to either side; the signature is
HMAC-SHA-256 over "ID.TIMESTAMP.BODY", compared in constant time; the body is the message of that id. Only then is it
asked whether the id was seen before: jitrca repeats a delivery whose answer got lost, under the same id and a new
timestamp. An id is remembered for as long as jitrca may repeat it (give_up_after, at most 13 days); a receiver of
several processes keeps the ids in its database, beside what it does about them.

As a program: verify_webhook.py SECRET_FILE ID TIMESTAMP SIGNATURE < BODY; exit status 0 says that it is genuine.
"""
import base64
import hashlib
import hmac
import json
import re
import sys
import time

WINDOW_S = 300
REMEMBER_S = 14 * 86400


class Refused(Exception):
    """Answer 400 or 401: it is not ours, or not of now."""


class Repeated(Refused):
    """Genuine, but handled before: answer 200 and do nothing."""


class Verifier:
    def __init__(self, secret, now=time.time):
        self.key = base64.b64decode(secret[len("whsec_"):]) if secret.startswith("whsec_") else secret.encode()
        self.now = now
        self.seen = {}  # id: when it was seen

    def check(self, headers, body):
        headers = {name.lower(): value for name, value in headers.items()}
        try:
            message_id, timestamp, signatures = (headers[f"webhook-{part}"] for part in ("id", "timestamp", "signature"))
        except KeyError as missing:
            raise Refused(f"no header {missing}") from None
        if not re.fullmatch(r"[0-9]{1,12}", timestamp) or abs(self.now() - int(timestamp)) > WINDOW_S:
            raise Refused("the timestamp is not of now")
        signed = f"{message_id}.{timestamp}.".encode() + body
        wanted = "v1," + base64.b64encode(hmac.new(self.key, signed, hashlib.sha256).digest()).decode()
        if not any(hmac.compare_digest(wanted.encode(), found.encode()) for found in signatures.split(" ")):
            raise Refused("the signature is not ours")
        message = json.loads(body)
        if message.get("id") != message_id:
            raise Refused("the body is of another message")
        self.forget()
        if message_id in self.seen:
            raise Repeated("seen before")
        self.seen[message_id] = self.now()
        return message

    def forget(self):
        end = self.now() - REMEMBER_S
        self.seen = {key: at for key, at in self.seen.items() if at > end}


def main():
    secret_file, message_id, timestamp, signature = sys.argv[1:5]
    with open(secret_file, encoding="utf-8") as file:
        verifier = Verifier(file.read().strip())
    headers = {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
    try:
        print(json.dumps(verifier.check(headers, sys.stdin.buffer.read()), indent=2))
    except Refused as why:
        sys.exit(f"refused: {why}")


if __name__ == "__main__":
    main()
