#!/usr/bin/python3
"""The life of a device against the running stack (`make run` in another terminal), with openssl, curl and Mosquitto's clients.

Signed in the factory, registered by its first connection to IoT Core, heard on its own topics alone, rotated at runtime,
confirmed, revoked, cut off. Prints what happened and how long it took. Without a local IoT Core it plays the rest.
The stack is the one that var/dev/env tells of, or the file that is named.
"""
import contextlib
import json
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


# What may take a moment (an event, a change that is on its way) is given up after this.
PATIENCE_S = 30
PAUSE_S = 0.05


def environment():
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "var" / "dev" / "env"
    if not path.exists():
        sys.exit(f"{path} is not there: start the stack first, with `make run` in another terminal.")
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

    # -- at IoT Core --------------------------------------------------------------------------------

    def mosquitto(self, program, identity, *arguments):
        """A command line of Mosquitto's clients; the device's name is its client id."""
        return [program, "-h", self.env["MQTT_HOST"], "-p", self.env["MQTT_PORT"], "--cafile", self.env["MQTT_CA_BUNDLE"],
                "--cert", str(self.folder / f"{identity}.crt"), "--key", str(self.folder / f"{identity}.key"), "-i", self.name,
                "-q", "1", *arguments]

    def published(self, identity, topic):
        return subprocess.run(self.mosquitto("mosquitto_pub", identity, "-t", topic, "-m", "21.5"), capture_output=True,
                              timeout=PATIENCE_S, check=False).returncode == 0

    def until(self, condition, what, start):
        while not condition():
            if time.monotonic() - start > PATIENCE_S:
                sys.exit(f"{what}: not within {PATIENCE_S} s")
            time.sleep(PAUSE_S)  # what is asked has no event for those outside

    def first_connection(self, identity):
        own = f"devices/{self.name}/temperature"
        start = time.monotonic()
        if self.published(identity, own):
            sys.exit("an unknown certificate was let in at its first connection")
        self.say("IoT Core: first connection refused; the unknown certificate of our CA is registered, jitrca is told", start)
        self.until(lambda: self.published(identity, own), "the second connection", start)
        self.say("device:  let in and heard, counted from its first try", start)

    def in_iot_core(self):
        if not shutil.which("aws"):
            return
        start = time.monotonic()
        done = subprocess.run(["aws", "iot", "describe-thing", "--thing-name", self.name, "--endpoint-url",
                               self.env["IOTCORE_ENDPOINT_URL"], "--output", "json"], env={"PATH": "/usr/bin:/bin", **self.env},
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"aws iot describe-thing: {done.stderr}")
        thing = json.loads(done.stdout)
        self.say(f"aws iot: thing {thing['thingName']}, type {thing.get('thingTypeName', 'none')}, attributes "
                 f"{json.dumps(thing['attributes'])}", start)

    def own_topics(self):
        topic = f"devices/{self.name}/echo"
        start = time.monotonic()
        echo = subprocess.run(self.mosquitto("mosquitto_rr", "first", "-t", topic, "-e", topic, "-m", "hello", "-W", "10"),
                              capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if echo.stdout.strip() != "hello":
            sys.exit(f"no echo on its own topic: {echo.stderr}")
        self.say(f"device:  publishes to {topic} and hears itself", start)
        start = time.monotonic()
        if self.published("first", "devices/another-device/temperature"):
            sys.exit("another thing's topic was open to it")
        self.say("IoT Core: another thing's topic is refused, the session closed", start)

    def listen(self, identity):
        """A session that stays; returns (process, its sockets)."""
        process = subprocess.Popen(["stdbuf", "-oL", *self.mosquitto("mosquitto_sub", identity, "-d", "-t",
                                                                     f"devices/{self.name}/commands")],
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in process.stdout:
            if "SUBACK" in line:
                return process, self.sockets(process)
        sys.exit("the subscription to its own topic was refused")

    def play_cut(self, process, sockets, start):
        """mosquitto_sub comes again by itself after a second; its socket is gone as soon as the broker closes it."""
        self.until(lambda: not sockets <= self.sockets(process), "the end of its session", start)
        self.say("IoT Core: its session is cut (time since the revocation)", start)
        process.terminate()
        process.wait()

    @staticmethod
    def sockets(process):
        folder = pathlib.Path(f"/proc/{process.pid}/fd")
        names = set()
        for entry in folder.iterdir():
            with contextlib.suppress(OSError):
                names.add(str(entry.readlink()))
        return {name for name in names if name.startswith("socket:")}

    # -- the story ----------------------------------------------------------------------------------

    def play(self):
        iot = "IOTCORE_ENDPOINT_URL" in self.env
        if iot and not shutil.which("mosquitto_pub"):
            print("mosquitto_pub is missing (apt-get install mosquitto-clients): what is IoT Core's is left out")
            iot = False
        url, admin = self.env["JITRCA_URL"], self.env["JITRCA_ADMIN_TOKEN"]
        start = time.monotonic()
        self.wanted(self.curl("POST", f"{url}/v1/manifests", {
            "id": self.name, "station": "demo-station", "profile": "device", "quantity": 1,
            "device_ids": [self.name]}, token=admin), (201,))
        self.say(f"admin:   a work order for one device, {self.name}", start)
        order = {"csr": self.new_csr("first"), "device_id": self.name, "thing_type": "thermometer",
                 "attributes": {"model": "demo", "line": "7"}}
        start = time.monotonic()
        first = self.wanted(self.curl("POST", f"{url}/v1/certificates", order,
                                      token=self.env["JITRCA_STATION_TOKEN"],
                                      headers=[f"Idempotency-Key: {self.name}"]), (201,))
        self.say(f"factory: {self.name} signed, serial {first['serial']}, until {first['not_after']}", start)
        self.keep("first", first)
        start = time.monotonic()
        again = self.wanted(self.curl("POST", f"{url}/v1/certificates", order,
                                      token=self.env["JITRCA_STATION_TOKEN"],
                                      headers=[f"Idempotency-Key: {self.name}"]), (200,))
        assert again["certificate"] == first["certificate"]
        self.say("factory: asked again after a lost answer: the very same certificate", start)
        if iot:
            self.first_connection("first")
            self.in_iot_core()
            self.own_topics()
        start = time.monotonic()
        window = self.wanted(self.curl("GET", f"{self.devices}/v1/rotation", device="first"), (200,))
        self.say(f"device:  rotate between {window['window']['start']} and {window['window']['end']}", start)
        csr = self.new_csr("second")
        start = time.monotonic()
        second = self.wanted(self.curl("POST", f"{self.devices}/v1/rotation", {"csr": csr}, device="first"), (201,))
        self.keep("second", second)
        self.say(f"device:  successor {second['serial']} ({second['status']}); the old one still works", start)
        if iot:
            self.first_connection("second")
            start = time.monotonic()
            if not self.published("first", f"devices/{self.name}/temperature"):
                sys.exit("the old certificate does not work any more")
            self.say("device:  the old certificate is let in as well, until the new one is confirmed", start)
        start = time.monotonic()
        self.wanted(self.curl("POST", f"{self.devices}/v1/rotation/confirm", device="second"), (200,))
        self.say("device:  confirmed with the successor", start)
        start = time.monotonic()
        old = self.wanted(self.curl("GET", f"{self.devices}/v1/rotation", device="first"), (401,))
        self.say(f"server:  the old certificate is refused: {old['code']}", start)
        if iot:
            start = time.monotonic()
            self.until(lambda: not self.published("first", f"devices/{self.name}/temperature"), "the old one's end", start)
            self.say("IoT Core: the old certificate is refused", start)
            session = self.listen("second")
        start = time.monotonic()
        self.wanted(self.curl("POST", f"{url}/v1/certificates/{second['certificate_id']}/revoke",
                              {"reason": "keyCompromise", "comment": "demo"}, token=admin), (200,))
        self.say("admin:   revoked for key compromise", start)
        refused = self.wanted(self.curl("GET", f"{self.devices}/v1/rotation", device="second"), (401,))
        self.say(f"server:  refused at mutual TLS: {refused['code']}", start)
        if iot:
            self.play_cut(*session, start)
        self.until(lambda: self.listed(second), "the serial on its CRL shard", start)
        self.say("crl:     the serial is on its shard (time since the revocation)", start)


def main():
    with tempfile.TemporaryDirectory(prefix="jitrca-demo-") as folder:
        Demo(environment(), pathlib.Path(folder)).play()


if __name__ == "__main__":
    main()
