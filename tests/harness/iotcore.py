"""A running `jitrca iotcore` on a database and port of its own, and the ways to ask it: botocore and the CLI."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import botocore.config
import botocore.session
import psycopg2
import requests

from harness.stack import BIN, DEADLINE_S, SANITIZER, free_port, wait_until

ACCOUNT = "123456789012"
REGION = "eu-central-1"
KEY, SECRET = "AKIALOCALTEST0000001", "canary/secret+of/the+first/user000000001"
READER, READER_SECRET = "AKIALOCALTEST0000002", "canary/secret+of/the+reader/000000000002"
AWS = "/usr/bin/aws"


class LocalCore:
    """Use as a context manager. share: another one, whose database is used."""

    def __init__(self, cluster, config=None, quotas=None, share=None, binary=BIN):
        self.cluster = cluster
        self.binary = binary
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="jitrca-core-"))
        self.share = share
        self.port = free_port()
        self.database_url = share.database_url if share else cluster.url(cluster.new_database())
        self.process = None
        self.log_path = self.dir / "iotcore.log"
        credentials = self.dir / "credentials"
        credentials.write_text(f"# access key, secret\n{KEY} {SECRET}\n{READER}\t{READER_SECRET} readonly\n")
        credentials.chmod(0o600)
        self.settings = {
            "database_url": self.database_url,
            "iotcore_listen": f"127.0.0.1:{self.port}",
            "iotcore_account": ACCOUNT,
            "iotcore_region": REGION,
            "iotcore_endpoint": "broker.example:8883",
            "iotcore_credentials_file": credentials,
            "log_level": "debug",
            **(config or {}),
        }
        if quotas is not None:
            (self.dir / "quotas").write_text(quotas)
            self.settings["iotcore_quotas_file"] = self.dir / "quotas"
        self.config = self.dir / "jitrca.conf"
        self.config.write_text("".join(f"{key} = {value}\n" for key, value in self.settings.items()))
        self.env = {key: value for key, value in os.environ.items()
                    if not key.startswith(("JITRCA_", "AWS_"))}
        self.scheme = "https" if self.settings.get("iotcore_tls_certificates") else "http"

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    # -- life ---------------------------------------------------------------------------------------

    def __enter__(self):
        try:
            if not self.share:
                self.migrate()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def migrate(self):
        subprocess.run([str(self.binary), "migrate", "--config", str(self.config)], env=self.env, check=True,
                       capture_output=True, timeout=60)

    def start(self, wait=True):
        self.process = subprocess.Popen([str(self.binary), "iotcore", "--config", str(self.config)], env=self.env,
                                        stderr=open(self.log_path, "ab"), stdout=subprocess.DEVNULL,
                                        stdin=subprocess.DEVNULL)
        if wait:
            wait_until(self.ready, "jitrca iotcore ready")

    def ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"jitrca iotcore ended with {self.process.returncode}:\n{self.log_tail()}")
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{self.url}/readyz", timeout=2, verify=False).status_code == 200
        return False

    def stop(self, how=signal.SIGTERM):
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        code, self.process = self.process.returncode, None
        return code

    def close(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
        if not os.environ.get("JITRCA_TEST_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)

    def __exit__(self, *_):
        try:
            code = self.stop()
            log = self.log_path.read_text(errors="replace")
            assert code == 0, f"exit {code}\n{log[-4000:]}"
            if SANITIZER:
                assert "ERROR: AddressSanitizer" not in log and "runtime error:" not in log and \
                    "LeakSanitizer" not in log, log[-8000:]
        finally:
            self.close()

    def log_tail(self, size=6000):
        return self.log_path.read_text(errors="replace")[-size:] if self.log_path.exists() else ""

    def events(self):
        return [json.loads(line) for line in self.log_path.read_text().splitlines() if line.startswith("{")]

    # -- asking -------------------------------------------------------------------------------------

    def client(self, key=KEY, secret=SECRET, region=REGION, **options):
        """botocore's client as Debian has it, without retries, without any other configuration."""
        session = botocore.session.Session(session_vars={
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        })
        session.set_credentials(key, secret)
        return session.create_client(
            "iot", region_name=region, endpoint_url=self.url, verify=False,
            config=botocore.config.Config(retries={"max_attempts": 0}, **options))

    def aws(self, *arguments, key=KEY, secret=SECRET, region=REGION, check=True, stdin=None):
        """`aws iot …` with keys and region in the environment and nothing else; its JSON, or None."""
        env = {**self.env, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_DEFAULT_REGION": region,
               "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_MAX_ATTEMPTS": "1",
               "AWS_PAGER": "", "AWS_EC2_METADATA_DISABLED": "true"}
        done = subprocess.run([AWS, "iot", *map(str, arguments), "--endpoint-url", self.url, "--output", "json"],
                              env=env, capture_output=True, text=True, timeout=120, check=False, input=stdin)
        if check and done.returncode != 0:
            raise AssertionError(f"aws iot {' '.join(map(str, arguments))}: {done.returncode}\n{done.stderr}")
        if not check:
            return done
        return json.loads(done.stdout) if done.stdout.strip() else None

    def query(self, sql, *args):
        with contextlib.closing(psycopg2.connect(self.database_url)) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(sql, args)
            return cursor.fetchall() if cursor.description else None
