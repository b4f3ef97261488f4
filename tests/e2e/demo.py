#!/usr/bin/python3
"""The life of a device against the running stack (`make run` in another terminal), with openssl and curl.

Signed in the factory, rotated at runtime, confirmed, revoked, refused. Prints what happened and how long it took.
"""
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def environment():
    path = ROOT / "var" / "dev" / "env"
    if not path.exists():
        sys.exit("var/dev/env is not there: start the stack first, with `make run` in another terminal.")
    values = {}
    for line in path.read_text().splitlines():
        line = line.removeprefix("export ").strip()
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            values[name] = shlex.split(value)[0] if value else ""
    return values


class Demo:
    def __init__(self, env, folder):
        self.env = env
        self.folder = folder
        self.devices = env.get("JITRCA_DEVICE_URL") or env["JITRCA_URL"]
        self.name = f"demo-{time.strftime('%Y%m%d-%H%M%S')}"

    def say(self, text, started=None):
        took = f"{(time.monotonic() - started) * 1000:7.1f} ms" if started else " " * 10
        print(f"{took}  {text}", flush=True)

    def new_csr(self, name):
        key, csr = self.folder / f"{name}.key", self.folder / f"{name}.csr"
        subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key], check=True)
        subprocess.run(["openssl", "req", "-new", "-key", key, "-subj", "/CN=ignored", "-out", csr], check=True)
        return csr.read_text()

    def curl(self, method, url, body=None, token=None, device=None, headers=()):
        """Returns (status, body). Secrets go in by a configuration on standard input, never in argv."""
        lines = [f'url = "{url}"', f'request = "{method}"', f'cacert = "{self.env["JITRCA_CA_BUNDLE"]}"', "silent",
                 'write-out = "\\n%{http_code}"']
        lines += [f'header = "{header}"' for header in headers]
        if token:
            lines.append(f'header = "Authorization: Bearer {token}"')
        if device:
            lines += [f'cert = "{self.folder / device}.crt"', f'key = "{self.folder / device}.key"']
        if body is not None:
            data = self.folder / "body.json"
            data.write_text(json.dumps(body))
            lines += ['header = "Content-Type: application/json"', f'data-binary = "@{data}"']
        out = subprocess.run(["curl", "-K", "-"], input="\n".join(lines), capture_output=True, text=True, check=False)
        text, _, status = out.stdout.rpartition("\n")
        if status in ("", "000"):
            sys.exit(f"No answer from {url}: is the stack running? {out.stderr}")
        return int(status), text

    def wanted(self, answer, status):
        if answer[0] not in status:
            sys.exit(f"Expected {status}, got {answer[0]}: {answer[1]}")
        return json.loads(answer[1]) if answer[1].startswith("{") else answer[1]

    def keep(self, name, body):
        (self.folder / f"{name}.crt").write_text(body["certificate"] + body["chain"])

    def listed(self, body):
        url = f"{self.env['JITRCA_HTTP_URL']}/crl/{body['ca']}/{body['serial'][2:4]}.crl"
        crl = subprocess.run(["curl", "-s", url], capture_output=True, check=True).stdout
        text = subprocess.run(["openssl", "crl", "-inform", "DER", "-noout", "-text"], input=crl, capture_output=True,
                              check=True).stdout.decode()
        return body["serial"].upper() in text

    def play(self):
        url, admin = self.env["JITRCA_URL"], self.env["JITRCA_ADMIN_TOKEN"]
        start = time.monotonic()
        self.wanted(self.curl("POST", f"{url}/v1/manifests", {
            "id": self.name, "station": "demo-station", "profile": "device", "quantity": 1,
            "device_ids": [self.name]}, token=admin), (201,))
        self.say(f"admin:   a work order for one device, {self.name}", start)
        csr = self.new_csr("first")
        start = time.monotonic()
        first = self.wanted(self.curl("POST", f"{url}/v1/certificates", {"csr": csr, "device_id": self.name},
                                      token=self.env["JITRCA_STATION_TOKEN"],
                                      headers=[f"Idempotency-Key: {self.name}"]), (201,))
        self.say(f"factory: {self.name} signed, serial {first['serial']}, until {first['not_after']}", start)
        self.keep("first", first)
        start = time.monotonic()
        again = self.wanted(self.curl("POST", f"{url}/v1/certificates", {"csr": csr, "device_id": self.name},
                                      token=self.env["JITRCA_STATION_TOKEN"],
                                      headers=[f"Idempotency-Key: {self.name}"]), (200,))
        assert again["certificate"] == first["certificate"]
        self.say("factory: asked again after a lost answer: the very same certificate", start)
        start = time.monotonic()
        window = self.wanted(self.curl("GET", f"{self.devices}/v1/rotation", device="first"), (200,))
        self.say(f"device:  rotate between {window['window']['start']} and {window['window']['end']}", start)
        csr = self.new_csr("second")
        start = time.monotonic()
        second = self.wanted(self.curl("POST", f"{self.devices}/v1/rotation", {"csr": csr}, device="first"), (201,))
        self.keep("second", second)
        self.say(f"device:  successor {second['serial']} ({second['status']}); the old one still works", start)
        start = time.monotonic()
        self.wanted(self.curl("POST", f"{self.devices}/v1/rotation/confirm", device="second"), (200,))
        self.say("device:  confirmed with the successor", start)
        start = time.monotonic()
        old = self.wanted(self.curl("GET", f"{self.devices}/v1/rotation", device="first"), (401,))
        self.say(f"server:  the old certificate is refused: {old['code']}", start)
        start = time.monotonic()
        self.wanted(self.curl("POST", f"{url}/v1/certificates/{second['certificate_id']}/revoke",
                              {"reason": "keyCompromise", "comment": "demo"}, token=admin), (200,))
        self.say("admin:   revoked for key compromise", start)
        refused = self.wanted(self.curl("GET", f"{self.devices}/v1/rotation", device="second"), (401,))
        self.say(f"server:  refused at mutual TLS: {refused['code']}", start)
        while not self.listed(second):
            if time.monotonic() - start > 10:
                sys.exit("the serial did not appear on its CRL shard within 10 s")
            time.sleep(0.02)  # a published list is polled: nothing tells a relying party
        self.say("crl:     the serial is on its shard (time since the revocation)", start)


def main():
    with tempfile.TemporaryDirectory(prefix="jitrca-demo-") as folder:
        Demo(environment(), pathlib.Path(folder)).play()


if __name__ == "__main__":
    main()
