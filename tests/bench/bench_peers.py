"""make bench-peers: the same work by somebody else's CA, with the same generator, in the same run.

cfssl (Debian's golang-cfssl): `cfssl serve` with its PostgreSQL certdb on a cluster with fsync, beside us with a
factory station. Both over TLS 1.2 or 1.3 with kept connections and client certificates where cfssl can ask for them.
"""
import contextlib
import datetime
import ipaddress
import json
import shutil
import subprocess

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from harness.stack import free_port, wait_until
from harness.x509 import Authority, key_pem, new_key, pem

from measure import Line, cpu_s, family_cpu_s, first_line, load

CLIENTS = ((32, 8), (8, 4), (1, 1))  # and how much faster we want to be

# cfssl's own: certdb/pg/migrations/001_CreateCertificates.sql says these tables.
CERTDB = """
CREATE TABLE certificates (serial_number bytea NOT NULL, authority_key_identifier bytea NOT NULL, ca_label bytea,
	status bytea NOT NULL, reason int, expiry timestamptz, revoked_at timestamptz, pem bytea NOT NULL,
	PRIMARY KEY (serial_number, authority_key_identifier));
CREATE TABLE ocsp_responses (serial_number bytea NOT NULL, authority_key_identifier bytea NOT NULL, body bytea NOT NULL,
	expiry timestamptz, PRIMARY KEY (serial_number, authority_key_identifier),
	FOREIGN KEY (serial_number, authority_key_identifier) REFERENCES certificates (serial_number, authority_key_identifier));
"""


def listener_certificate(authority):
    key = new_key()
    now = datetime.datetime.utcnow()
    certificate = (x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
                   .issuer_name(authority.name).public_key(key.public_key()).serial_number(x509.random_serial_number())
                   .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=30))
                   .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"),
                                                               x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
                   .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False)
                   .sign(authority.key, hashes.SHA256()))
    return pem(certificate), key_pem(key)


class Cfssl:
    """`cfssl serve` on a cluster of its own, with a P-256 CA and the extensions that our device profile gives."""

    NAME = "cfssl"

    def __init__(self, bench):
        self.dir = bench.dir / "cfssl"
        self.dir.mkdir(exist_ok=True)
        self.bench = bench
        self.port = free_port()
        self.next = 0
        helped = subprocess.run(["cfssl", "serve", "-h"], capture_output=True, text=True, check=False)
        self.mutual = "-mutual-tls-ca" in helped.stdout + helped.stderr
        self.exits = contextlib.ExitStack()
        self.version = first_line("cfssl", "version")

    def _write(self, name, text):
        path = self.dir / name
        path.write_text(text)
        return str(path)

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.exits.close()
            raise
        return self

    def _start(self):
        self.cluster = self.exits.enter_context(self.bench.cluster())
        database = self.cluster.new_database()
        psql = subprocess.run([str(self.cluster.bin / "psql"), "-qXd", self.cluster.url(database), "-v", "ON_ERROR_STOP=1"],
                              input=CERTDB, text=True, capture_output=True, check=False)
        assert psql.returncode == 0, psql.stderr
        authority = Authority("Peer CA")
        certificate, key = listener_certificate(authority)
        self.ca = self._write("ca.pem", authority.pem)
        url = "http://ca.example.com"
        config = {"signing": {"default": {"expiry": "8760h", "usages": ["digital signature", "client auth"],
                                          "crl_url": f"{url}/crl", "issuer_urls": [f"{url}/ca"]}}}
        data_source = f"host={self.cluster.dir} user={self.cluster.user} dbname={database} sslmode=disable"
        command = ["cfssl", "serve", "-address", "127.0.0.1", "-port", str(self.port), "-loglevel", "4", "-ca", self.ca,
                   "-ca-key", self._write("ca.key", key_pem(authority.key)),
                   "-config", self._write("config.json", json.dumps(config)),
                   "-db-config", self._write("db.json", json.dumps({"driver": "postgres", "data_source": data_source})),
                   "-tls-cert", self._write("tls.crt", certificate), "-tls-key", self._write("tls.key", key)]
        if self.mutual:
            command += ["-mutual-tls-ca", self.ca]
        self.log = self.exits.enter_context(open(self.dir / "log", "wb"))
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd=self.dir)
        self.exits.callback(self._stop)
        wait_until(self._ready, "cfssl", 20)

    def _ready(self):
        assert self.process.poll() is None, (self.dir / "log").read_text()[-2000:]
        with contextlib.suppress(RuntimeError):
            return load("get", count=1, path="/", **self.transport)["requests"] == 1
        return False

    def _stop(self):
        self.process.terminate()
        self.process.wait(20)

    def __exit__(self, *_):
        self.exits.close()

    @property
    def transport(self):
        own = {"cert": self.dir / "tls.crt", "key": self.dir / "tls.key"} if self.mutual else {}
        return {"connect": f"127.0.0.1:{self.port}", "ca": self.ca, **own}

    def issue(self, count, connections):
        first, self.next = self.next, self.next + count
        before = cpu_s(self.process.pid), family_cpu_s(self.cluster.process.pid)
        figures = load("cfssl", csrs=self.bench.csr_file, first=first, count=count, connections=connections, prefix="unit",
                       **self.transport)
        spent = cpu_s(self.process.pid) - before[0], family_cpu_s(self.cluster.process.pid) - before[1]
        assert figures["statuses"] == {"200": count}, figures
        return {**figures, "server_us": spent[0] / count * 1e6, "postgresql_us": spent[1] / count * 1e6,
                "certificates_per_s": figures["per_s"]}


def describe(figures):
    return (f"{figures['certificates_per_s']['median']:.0f}/s, p99 {figures['p99_ms']['median']:.1f} ms; CPU us:"
            f" server {figures['server_us']['median']:.0f}, PostgreSQL {figures['postgresql_us']['median']:.0f}")


def beside(bench, peer, line):
    how = "mutual TLS, kept connections" if peer.mutual else \
        "TLS, kept connections; ours mutual, theirs without client certificates (it cannot ask for them)"
    bench.figure("transport", how, how)
    bench.figure("peer", {"name": peer.NAME, "version": peer.version})
    line.issue(bench.pick(20, 2000), 8)
    peer.issue(bench.pick(20, 500), 8)
    for clients, wanted in CLIENTS:
        ours_count, theirs_count = bench.pick((20, 20), (1000, 600) if clients == 1 else (6000, 1500))

        def once():
            # In turn, so that a slow moment of the machine slows both.
            own, other = line.issue(ours_count, clients), peer.issue(theirs_count, clients)
            return {"ours": own, "peer": other, "ratio": own["certificates_per_s"] / other["certificates_per_s"]}
        figures = bench.repeat(f"{clients} clients, {peer.NAME} and we", once)
        for who in ("ours", "peer"):
            bench.figure(f"{clients} clients, {who}", figures[who], describe(figures[who]))
        bench.must(f"{clients} keep-alive clients: our rate over {peer.NAME}'s with PostgreSQL", figures["ratio"]["median"],
                   at_least=wanted, unit=" x")


def bench_peers(bench):
    if shutil.which("cfssl") is None:
        bench.skip("beside cfssl with PostgreSQL", ">= 8 x", "cfssl is not installed (Debian: golang-cfssl)")
        return
    with bench.stack() as stack, Cfssl(bench) as peer:
        units = bench.pick(200, bench.runs * (6000 * 2 + 1000) + 4000)
        beside(bench, peer, Line(bench, stack, units))
