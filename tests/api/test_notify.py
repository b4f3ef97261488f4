"""Notifications, received: mail, signed webhooks, SNS, syslog; receivers that misbehave; repeats, rates, retries."""
import contextlib
import datetime
import email
import email.policy
import importlib.util
import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import pathlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from harness.client import admin, code
from harness.receivers import HttpReceiver, Mail, Sns, Syslog
from harness.stack import ROOT, Stack, alive, wait_until
from harness.x509 import Authority, key_pem, name, new_key, pem

PASSWORD = "canary-smtp-password-7Zq"
SECRET = "whsec_Y2FuYXJ5LXdlYmhvb2sta2V5LTAxMjM0NTY3ODlhYmNkZWY="
SECRET_PLAIN = "canary-plain-webhook-key-0123"
TOPIC = "arn:aws:sns:eu-west-1:000000000000:alerts.fifo"
CERTIFICATE = "ab" * 32
NASTY = "x\r\nBcc: <evil@example.com>\r\n\r\n\"]|=\\ \x1b[31m é"

spec = importlib.util.spec_from_file_location("verify_webhook", ROOT / "docs" / "verify_webhook.py")
verify_webhook = importlib.util.module_from_spec(spec)
spec.loader.exec_module(verify_webhook)


def loopback_tls(directory):
    """A CA's file, and (certificate, key) of 127.0.0.1 by it."""
    authority, key = Authority("Notify Test CA"), new_key()
    now = datetime.datetime.utcnow()
    leaf = (x509.CertificateBuilder().subject_name(name("127.0.0.1")).issuer_name(authority.name)
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .sign(authority.key, hashes.SHA256()))
    for file, text in (("ca.pem", authority.pem), ("leaf.pem", pem(leaf)), ("leaf.key", key_pem(key))):
        (directory / file).write_text(text)
    return str(directory / "ca.pem"), (str(directory / "leaf.pem"), str(directory / "leaf.key"))


class Site:
    """jitrca serve with a channel of each kind. An event of kind NAME_… goes to the channel NAME."""

    def __init__(self, cluster):
        self.parts = contextlib.ExitStack()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="jitrca-notify-"))
        self.dir.chmod(0o755)
        self.parts.callback(shutil.rmtree, self.dir, ignore_errors=True)
        enter = self.parts.enter_context
        ca, tls = loopback_tls(self.dir)
        for file, text in (("password", PASSWORD), ("secret", SECRET), ("plain", SECRET_PLAIN)):
            (self.dir / file).write_text(text + "\n")
            (self.dir / file).chmod(0o600)
        self.mail = enter(Mail(starttls=tls, login=("jitrca", PASSWORD)))
        self.smtps = enter(Mail(tls=tls))
        self.away = Mail()
        self.hook, self.bad, self.alien = enter(HttpReceiver(tls=tls)), enter(HttpReceiver()), enter(HttpReceiver(tls=tls))
        self.sns = enter(Sns())
        self.logs = {kind: enter(Syslog(kind, tls=tls if kind == "tls" else None, directory=self.dir))
                     for kind in ("udp", "tcp", "tls", "local")}
        mail = {"type": "email", "from": "jitrca@ca.test", "to": ["ops@example.test", "night@example.test"]}
        fast = {"rate_per_hour": 100000, "burst": 1000, "timeout_ms": 3000}
        syslog = {"type": "syslog", "hostname": "ca.test", "host": "127.0.0.1", "ca_file": ca, **fast}
        self.channels = {
            "mail": {**mail, **fast, "url": f"smtp://127.0.0.1:{self.mail.port}", "username": "jitrca",
                     "password_file": str(self.dir / "password"), "ca_file": ca},
            "smtps": {**mail, **fast, "url": f"smtps://127.0.0.1:{self.smtps.port}", "ca_file": ca},
            "away": {**mail, **fast, "url": f"smtp://127.0.0.1:{self.away.port}", "starttls": "none"},
            "hook": {"type": "webhook", "url": f"{self.hook.url}/in?team=a", "secret_file": str(self.dir / "secret"),
                     "ca_file": ca, **fast},
            "bad": {"type": "webhook", "url": self.bad.url, "secret_file": str(self.dir / "plain"), **fast,
                    "timeout_ms": 500},
            "alien": {"type": "webhook", "url": self.alien.url, "secret_file": str(self.dir / "plain"), **fast},
            "topic": {"type": "sns", "topic_arn": TOPIC, "endpoint_url": self.sns.url, **fast},
            "slow": {"type": "webhook", "url": f"{self.hook.url}/slow", "secret_file": str(self.dir / "secret"),
                     "ca_file": ca, "rate_per_hour": 1, "burst": 4, "summary_after": "1h", "queue_max": 50},
            "udp": {**syslog, "transport": "udp", "port": self.logs["udp"].port},
            "tcp": {**syslog, "transport": "tcp", "port": self.logs["tcp"].port, "format": "cef"},
            "tls": {**syslog, "transport": "tls", "port": self.logs["tls"].port, "facility": "local3"},
            "local": {**syslog, "transport": "local", "path": str(self.logs["local"].path), "format": "cef"},
        }
        self.rules = [{"channels": [channel], "kinds": [f"{channel}_*"], "except": ["hook_never"], "severity": "low"}
                      for channel in self.channels]
        self.rules.append({"channels": ["hook"], "kinds": ["bulk_revocation_done"], "severity": "info"})
        self.file = self.dir / "notify.json"
        self.write()
        self.stack = enter(Stack(cluster, config={"notify_file": self.file}, env={
            "AWS_ACCESS_KEY_ID": Sns.KEYS[0], "AWS_SECRET_ACCESS_KEY": Sns.KEYS[1], "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}))
        self.boss = enter(admin(self.stack))

    def write(self):
        self.file.write_text("# who is told of what\n" + json.dumps({"channels": self.channels, "rules": self.rules},
                                                                    indent=1).replace('"rules"', '\n  # comment\n"rules"'))

    def event(self, kind, severity="high", device_id=None, certificate_id=None, detail=None):
        """As whoever causes one: a row, and nothing else."""
        (number,), = self.stack.query(
            "INSERT INTO jitrca.security_event (kind, severity, device_id, certificate_id, detail)"
            " VALUES (%s, %s, %s, %s, %s) RETURNING event_id", kind, severity, device_id, certificate_id,
            json.dumps(detail or {}, ensure_ascii=False))
        return number

    def sql(self, text, *args):
        with self.stack.db() as connection:
            connection.cursor().execute(text, args)

    def rows(self, **query):
        return self.boss.get("/v1/notifications", params=query).json()["notifications"]

    def row(self, event_id):
        found = [row for row in self.rows(limit=1000) if row["event_id"] == event_id]
        assert len(found) <= 1, found
        return found[0] if found else None

    def wait_row(self, event_id, condition, what):
        def look():
            row = self.row(event_id)
            return row if row and condition(row) else None
        try:
            return wait_until(look, what)
        except TimeoutError as error:
            raise AssertionError(f"{error}: {self.row(event_id)}\n{self.stack.log_tail()}") from error

    def wait_sent(self, event_id):
        return self.wait_row(event_id, lambda row: row["state"] == "sent", "sent")

    def due(self, event_id):
        self.sql("UPDATE jitrca.notification SET due_at = now() WHERE event_id = %s", event_id)
        self.sql("NOTIFY jitrca_notify")


@pytest.fixture(scope="module")
def site(cluster):
    it = Site(cluster)
    with it.parts:
        yield it


# ---- mail ----

@pytest.mark.parametrize("channel", ["mail", "smtps"])
def test_a_mail_arrives_with_nothing_injected(site, channel):
    number = site.event(f"{channel}_found", "critical", device_id=NASTY, certificate_id=CERTIFICATE,
                        detail={"note": NASTY, "long": "y" * 900, "from": ".\nFrom me\n."})
    sender, recipients, content, secure, authenticated = getattr(site, channel).kept.wait()
    site.wait_sent(number)
    assert (sender, recipients) == ("jitrca@ca.test", ["ops@example.test", "night@example.test"])
    assert secure == bool(authenticated) == (channel == "mail")  # the other port is TLS from its first octet
    head, body = content.split(b"\r\n\r\n", 1)
    assert max(map(len, content.split(b"\r\n"))) <= 100 and b"\n" not in content.replace(b"\r\n", b"")
    message = email.message_from_bytes(content, policy=email.policy.SMTP)
    # A relay adds its own above; ours are these, once each.
    assert [key for key in message.keys() if key not in ("X-Peer", "X-MailFrom", "X-RcptTo")] == [
        "Date", "From", "To", "Subject", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type",
        "Content-Transfer-Encoding"], head
    assert not message.defects and message["To"] == "ops@example.test, night@example.test"
    assert message["Subject"].startswith(f"[jitrca] CRITICAL {channel}_found: x?Bcc: <evil@example.com>")
    assert abs(message["Date"].datetime.timestamp() - time.time()) < 60
    text = message.get_content()
    assert CERTIFICATE in text and "y" * 900 in text and "é" in text and "evil@example.com" in text
    assert "\nBcc:" not in text and not re.search(rb"(?m)^(\.|From )", body)


def test_a_refused_recipient_keeps_the_others_mail_from_nobody(site):
    site.mail.refused = {"night@example.test"}
    number = site.event("mail_half")
    site.wait_sent(number)
    assert site.mail.kept.wait(lambda item: b"mail_half" in item[2])[1] == ["ops@example.test"]
    site.mail.refused |= {"ops@example.test"}
    number = site.event("mail_none")
    row = site.wait_row(number, lambda row: row["error"], "an error")
    assert row["error"]["code"] == "notify_refused" and row["error"]["text"].startswith("SMTP 550"), row
    site.mail.refused = set()
    site.due(number)
    site.wait_sent(number)


def test_a_mail_server_that_was_away_for_a_day_loses_nothing(site):
    numbers = [site.event("away_event", device_id=f"dev-{i}") for i in range(5)]
    for number in numbers:
        site.wait_row(number, lambda row: row["state"] == "waiting", "waiting")
    first = site.wait_row(numbers[0], lambda row: row["error"], "a try")
    assert first["error"]["code"] == "notify_unreachable"
    # A day later, by the rows: tried thirty times, the next try in an hour.
    site.sql("UPDATE jitrca.notification SET created_at = created_at - interval '1 day', attempts = 30,"
             " error_code = 'notify_unreachable', due_at = now() + interval '1 hour' WHERE event_id = ANY(%s)", numbers[1:])
    with site.away:
        site.due(numbers[0])
        for number in numbers:
            site.wait_sent(number)
    assert len(site.away.kept.all()) == len(numbers)


def test_after_days_it_is_given_up_and_can_be_told_to_try_again(site):
    number = site.event("away_given_up")
    site.wait_row(number, lambda row: row["state"] == "waiting", "routed")
    site.sql("UPDATE jitrca.notification SET created_at = created_at - interval '4 days' WHERE event_id = %s", number)
    site.due(number)
    row = site.wait_row(number, lambda row: row["state"] == "dead", "a dead letter")
    assert row["error"]["code"] == "notify_unreachable" and row["ended_at"] and row["due_at"] is None
    assert [row["event_id"] for row in site.rows(state="dead", channel="away")] == [number]
    with site.away:
        answer = site.boss.post("/v1/notifications/retry", json={"notification_id": row["notification_id"]})
        assert answer.json() == {"retried": 1}
        site.wait_sent(number)
    answer = site.boss.post("/v1/notifications/retry", json={"notification_id": row["notification_id"]})
    assert (answer.status_code, code(answer)) == (404, "notification_unknown")


# ---- webhooks ----

def test_a_webhook_verifies_and_what_is_forged_or_replayed_does_not(site):
    number = site.event("hook_found", device_id="dev-1", detail={"note": NASTY})
    path, headers, body = site.hook.kept.wait(lambda item: b"hook_found" in item[2])
    site.wait_sent(number)
    assert path == "/in?team=a" and headers["Content-Type"] == "application/json"
    verifier = verify_webhook.Verifier(SECRET)
    message = verifier.check(headers, body)
    assert message["event_id"] == number and message["device_id"] == "dev-1" and message["detail"] == {"note": NASTY}
    assert message["source"] == site.stack.url and message["severity"] == "high"

    with pytest.raises(verify_webhook.Repeated):
        verifier.check(headers, body)
    sent = {key.lower(): value for key, value in headers.items()}
    stamp = int(sent["webhook-timestamp"])
    forged = {
        "another body": (sent, body.replace(b"dev-1", b"dev-2")),
        "another id": ({**sent, "webhook-id": "0" * 32}, body),
        "another time": ({**sent, "webhook-timestamp": str(stamp + 1)}, body),
        "no signature": ({**sent, "webhook-signature": "v1,"}, body),
        "an unsigned one": ({key: value for key, value in sent.items() if key != "webhook-signature"}, body),
    }
    for what, (changed, octets) in forged.items():
        with pytest.raises(verify_webhook.Refused):
            verify_webhook.Verifier(SECRET).check(changed, octets)
            pytest.fail(what)
    with pytest.raises(verify_webhook.Refused):
        verify_webhook.Verifier(SECRET_PLAIN).check(headers, body)
    for later in (stamp + 301, stamp - 301):
        with pytest.raises(verify_webhook.Refused, match="not of now"):
            verify_webhook.Verifier(SECRET, now=lambda at=later: at).check(headers, body)

    script = [str(ROOT / "docs" / "verify_webhook.py"), str(site.dir / "secret"), sent["webhook-id"],
              sent["webhook-timestamp"], sent["webhook-signature"]]
    run = subprocess.run(["/usr/bin/python3", *script], input=body, capture_output=True, check=True)
    assert json.loads(run.stdout) == message
    assert subprocess.run(["/usr/bin/python3", *script], input=body + b" ", capture_output=True, check=False).returncode == 1


def test_rules_leave_out_what_they_do_not_name(site):
    quiet = [site.event("hook_never"), site.event("hook_info", "info"), site.event("unheard_of", "critical")]
    last = site.event("hook_after")
    site.wait_sent(last)
    assert [site.row(number) for number in quiet] == [None] * 3
    assert site.stack.query("SELECT count(*) FROM jitrca.security_event WHERE NOT routed") == [(0,)]


@pytest.mark.parametrize("mode, wanted", [("hang", "notify_unreachable"), ("garbage", "notify_unreachable"),
                                          ("redirect", "notify_refused"), ("endless", "notify_refused"),
                                          ("busy", "notify_refused"), ("gone", "notify_refused")])
def test_a_receiver_that_misbehaves_keeps_nobody_else_waiting(site, mode, wanted):
    site.bad.mode = mode
    number = site.event(f"bad_{mode}")
    site.bad.kept.wait(lambda item: f"bad_{mode}".encode() in item[2])
    other = site.event(f"hook_beside_{mode}")
    site.wait_sent(other)
    row = site.wait_row(number, lambda row: row["error"], "an error")
    assert row["state"] == "waiting" and row["error"]["code"] == wanted, row
    assert all(" " <= c <= "~" for c in row["error"]["text"])
    if mode == "redirect":
        assert "302" in row["error"]["text"]
    site.bad.release.set()
    site.bad.mode = "ok"
    wait_until(lambda: site.due(number) or site.row(number)["state"] == "sent", "sent after all", pause_s=0.2)
    site.bad.release.clear()
    calls = site.bad.kept.all(lambda item: f"bad_{mode}".encode() in item[2])
    assert {path for path, _, _ in calls} == {"/"} and len({headers["webhook-id"] for _, headers, _ in calls}) == 1
    for _, headers, body in calls:  # each repeat has a signature of its own time
        verify_webhook.Verifier(SECRET_PLAIN).check(headers, body)


def test_what_is_refused_for_good_becomes_a_dead_letter(site):
    site.bad.mode = "gone"
    number = site.event("bad_for_good")
    site.wait_row(number, lambda row: row["error"], "a try")
    site.sql("UPDATE jitrca.notification SET attempts = 7 WHERE event_id = %s", number)
    site.due(number)
    row = site.wait_row(number, lambda row: row["state"] == "dead", "a dead letter")
    assert row["attempts"] == 8 and row["error"]["text"].startswith("answered 410: gone for good")
    site.bad.mode = "ok"
    assert site.boss.post("/v1/notifications/retry", json={"channel": "bad"}).json() == {"retried": 1}
    site.wait_sent(number)


def test_what_a_dead_server_was_sending_comes_again_under_its_id(site):
    site.hook.mode = "hang"
    number = site.event("hook_interrupted")
    _, headers, _ = site.hook.kept.wait(lambda item: b"hook_interrupted" in item[2])
    frontend = site.stack.pids()["frontend"]
    os.kill(frontend, signal.SIGKILL)
    wait_until(lambda: not alive(frontend), "the end of the frontend")
    site.hook.mode = "ok"
    site.hook.release.set()
    site.stack.wait_ready()
    # Its lease would end by itself, in a minute or two.
    site.sql("UPDATE jitrca.notification SET lease_until = now() WHERE event_id = %s", number)
    site.due(number)
    row = site.wait_sent(number)
    calls = site.hook.kept.all(lambda item: b"hook_interrupted" in item[2])
    assert len(calls) == 2 and {call[1]["webhook-id"] for call in calls} == {headers["webhook-id"], row["notification_id"]}
    site.hook.release.clear()


def test_a_certificate_of_another_ca_is_not_spoken_to(site):
    number = site.event("alien_found")
    row = site.wait_row(number, lambda row: row["error"], "an error")
    assert row["error"]["code"] == "notify_unreachable" and "certificate" in row["error"]["text"].lower()
    assert site.alien.kept.all() == []


# ---- SNS, syslog ----

def test_sns_gets_what_its_model_wants(site):
    number = site.event("topic_found", "critical", device_id=NASTY, detail={"note": NASTY})
    message = site.sns.messages.wait()
    row = site.wait_sent(number)
    assert site.sns.findings == [] and message["TopicArn"] == TOPIC
    assert json.loads(message["Message"])["detail"] == {"note": NASTY}
    assert message["MessageAttributes"]["kind"]["StringValue"] == "topic_found"
    assert (message["MessageGroupId"], message["MessageDeduplicationId"]) == ("jitrca", row["notification_id"])
    site.sns.mode = "busy"
    number = site.event("topic_again")
    assert site.wait_row(number, lambda row: row["error"], "an error")["error"]["code"] == "notify_refused"
    site.sns.mode = "ok"
    site.due(number)
    site.wait_sent(number)


# RFC 5424 6: PRI VERSION SP TIMESTAMP SP HOSTNAME SP APP-NAME SP PROCID SP MSGID SP STRUCTURED-DATA SP MSG
HEADER = re.compile(rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) (ca\.test) (jitrca) (\d+) ([!-~]{1,32}) ")
ELEMENT = re.compile(rb'\[jitrca@32473((?: [a-z_]+="(?:[^"\\\]]|\\["\\\]])*")+)\]')
CEF = re.compile(rb"CEF:0\|jitrca\|jitrca\|[0-9.]+\|((?:[^|\\]|\\[|\\])*)\|((?:[^|\\]|\\[|\\])*)\|(\d+)\|(.*)", re.S)


def unescape(octets, marked):
    return re.sub(rb"\\([" + re.escape(marked) + rb"])", rb"\1", octets)


@pytest.mark.parametrize("transport, facility", [("udp", 10), ("tls", 19)])
def test_syslog_by_rfc_5424(site, transport, facility):
    number = site.event(f"{transport}_found", device_id=NASTY, certificate_id=CERTIFICATE, detail={"note": NASTY})
    octets = site.logs[transport].kept.wait()
    row = site.wait_sent(number)
    header = HEADER.match(octets)
    assert header and int(header[1]) == facility * 8 + 3 and header[6] == f"{transport}_found".encode(), octets
    element = ELEMENT.match(octets[header.end():])
    assert element, octets
    params = {key: unescape(value, b'"\\]') for key, value in re.findall(rb' ([a-z_]+)="((?:[^"\\\]]|\\.)*)"', element[1])}
    assert params[b"id"].decode() == row["notification_id"] and params[b"certificate_id"].decode() == CERTIFICATE
    assert params[b"device_id"].decode() == re.sub(r"[\x00-\x1f]", " ", NASTY)
    rest = octets[header.end() + element.end():]
    assert rest.startswith(b" \xef\xbb\xbf") and not re.search(rb"[\x00-\x1f\x7f]", octets)
    rest.decode("utf-8")


@pytest.mark.parametrize("transport", ["tcp", "local"])
def test_cef_for_a_siem(site, transport):
    number = site.event(f"{transport}_found", "critical", device_id=NASTY, detail={"note": NASTY})
    octets = site.logs[transport].kept.wait()
    row = site.wait_sent(number)
    head = re.match(rb"<82>jitrca\[\d+\]: ", octets) if transport == "local" else HEADER.match(octets)
    assert head, octets
    rest = octets[head.end():]
    cef = CEF.fullmatch(rest if transport == "local" else rest.removeprefix(b"- "))
    assert cef and cef[1] == f"{transport}_found".encode() and int(cef[3]) == 10, octets
    fields = dict(re.findall(rb"(\w+)=((?:[^=\\]|\\.)*?)(?= \w+=|$)", cef[4]))
    assert fields[b"externalId"].decode() == row["notification_id"] and abs(int(fields[b"rt"]) / 1000 - time.time()) < 60
    assert unescape(fields[b"deviceExternalId"], b"\\=").decode() == re.sub(r"[\x00-\x1f]", " ", NASTY)
    assert not re.search(rb"[\x00-\x1f\x7f]", octets)


def test_a_long_message_is_cut_to_what_a_syslog_receiver_takes(site):
    number = site.event("udp_long", device_id='"' * 60, detail={"note": "é" * 1000})
    octets = site.logs["udp"].kept.wait(lambda item: b"udp_long" in item)
    site.wait_sent(number)
    assert 2000 < len(octets) <= 2048
    octets.decode("utf-8")


# ---- repeats, rates, summaries: by the database's time ----

def test_repeats_and_floods_are_told_once_and_counted(site):
    def told():
        return [json.loads(body) for path, _, body in site.hook.kept.all() if path == "/slow"]

    def channel():
        return next(item for item in site.boss.get("/v1/notifications/channels").json()["channels"]
                    if item["channel"] == "slow")

    site.event("slow_odd", "medium", device_id="dev-1", detail={"n": 1})
    for n in range(2, 5):  # the same about the same device, whatever the detail
        site.event("slow_odd", "medium", device_id="dev-1", detail={"n": n})
    for n in range(10):  # a quarter of the burst of 4 is kept for what matters more
        site.event("slow_odd", "medium", device_id=f"other-{n}")
    last = site.event("slow_bad", "critical")
    site.wait_sent(last)
    assert [(message["kind"], message["device_id"]) for message in told()] == [
        ("slow_odd", "dev-1"), ("slow_odd", "other-0"), ("slow_odd", "other-1"), ("slow_bad", None)]
    assert channel()["suppressed"] == 3 + 8

    # An hour later: one message says how much, and the bucket has one token again.
    site.sql("UPDATE jitrca.notification_channel SET held_since = held_since - interval '1 hour',"
             " bucket_at = bucket_at - interval '1 hour' WHERE channel = 'slow'")
    site.sql("NOTIFY jitrca_notify")
    wait_until(lambda: len(told()) == 5, "a summary")
    summary = told()[4]
    assert (summary["kind"], summary["severity"], summary["event_id"]) == ("notifications_suppressed", "medium", None)
    assert {key: value for key, value in summary["detail"].items() if key != "since"} == {
        "suppressed": 11, "repeats": 3, "over_rate": 8, "over_queue": 0}
    assert channel()["suppressed"] == 0
    site.wait_sent(site.event("slow_worse", "critical"))
    assert told()[5]["kind"] == "slow_worse"

    # Told of long enough ago, the same is news again.
    site.sql("UPDATE jitrca.notification_told SET until = now() WHERE channel = 'slow'")
    site.sql("UPDATE jitrca.notification_channel SET bucket = 4, bucket_at = now() WHERE channel = 'slow'")
    site.wait_sent(site.event("slow_odd", "medium", device_id="dev-1", detail={"n": 5}))


def test_the_queue_has_an_end(site):
    site.sql("INSERT INTO jitrca.notification (notification_id, channel, kind, severity, body, due_at)"
             " SELECT md5(i::text), 'slow', 'old', 'low', '{}', now() + interval '1 day' FROM generate_series(1, 50) AS i")
    site.sql("UPDATE jitrca.notification_channel SET bucket = 4, bucket_at = now() WHERE channel = 'slow'")
    number = site.event("slow_full", "critical")
    site.wait_sent(site.event("hook_full"))
    assert site.row(number) is None
    assert site.stack.query("SELECT over_queue, worst FROM jitrca.notification_channel WHERE channel = 'slow'") == [(1, 4)]
    answer = site.boss.post("/v1/notifications/test", json={"channel": "slow"})
    assert (answer.status_code, code(answer)) == (429, "notify_queue_full")
    site.sql("DELETE FROM jitrca.notification WHERE kind = 'old'")


def test_an_event_that_does_not_fit_keeps_none_back(site):
    number = site.event("hook_huge", device_id="d" * 300, detail={"note": "x" * 5000})
    site.wait_sent(number)
    message = json.loads(site.hook.kept.wait(lambda item: b"hook_huge" in item[2])[2])
    assert message["device_id"] is None and message["detail"] == {"left_out": True}
    site.sql("DELETE FROM jitrca.security_event WHERE event_id = %s", number)


def test_an_old_event_is_no_news(site):
    number = site.event("hook_old")
    site.wait_sent(number)
    (old,), = site.stack.query("INSERT INTO jitrca.security_event (kind, severity, at, routed)"
                               " VALUES ('hook_before', 'high', now() - interval '2 days', true) RETURNING event_id")
    site.wait_sent(site.event("hook_new"))
    assert site.row(old) is None


# ---- causes, people, start ----

def test_a_bulk_revocation_says_that_it_is_done(site):
    assert site.boss.issue("bulk-1").status_code == 201
    answer = site.boss.post("/v1/revocations", json={"selector": {"device_id": "bulk-1"}, "reason": "superseded"})
    assert answer.status_code in (200, 201, 202), answer.text
    _, _, body = site.hook.kept.wait(lambda item: b"bulk_revocation_done" in item[2])
    message = json.loads(body)
    assert message["detail"]["revoked"] == 1 and message["detail"]["reason"] == "superseded"
    # The receipt has it as the receiver does, and keeps it though notifications grow old.
    path = f"/v1/revocations/{answer.json()['revocation_id']}"
    said = wait_until(lambda: (it := site.boss.get(path).json()["targets"]["webhook"])["state"] == "done" and it, "done")
    (delivery,) = said["deliveries"]
    assert (delivery["channel"], delivery["http_status"], delivery["error"]) == ("hook", 200, None), delivery
    assert delivery["delivery_id"] == message["id"] and delivery["attempts"] == 1 and delivery["done_at"]
    assert site.boss.get(path, headers={"Prefer": "wait=20"}).json()["complete"]
    single = site.boss.issue("bulk-single").json()
    alone = site.boss.post(f"/v1/certificates/{single['certificate_id']}/revoke", json={"reason": "superseded"}).json()
    said = site.boss.get(f"/v1/revocations/{alone['revocation_id']}").json()["targets"]["webhook"]
    assert said == {"state": "not_configured", "deliveries": []}


def test_a_receipt_says_what_a_webhook_refused_and_held_back(site):
    receipts = []
    try:
        site.hook.mode = "busy"
        for n in range(2):
            assert site.boss.issue(f"refused-{n}").status_code == 201
            answer = site.boss.post("/v1/revocations", json={"selector": {"device_id": f"refused-{n}"}, "reason": "superseded"})
            receipts.append(answer.json()["revocation_id"])

        def said(number):
            return site.boss.get(f"/v1/revocations/{receipts[number]}").json()["targets"]["webhook"]
        wait_until(lambda: said(0)["deliveries"][0]["http_status"] == 503, "the refusal")
        assert said(0)["state"] == "running" and said(0)["deliveries"][0]["error"] == "notify_refused"
        site.sql("UPDATE jitrca.notification SET state = 'dead', ended_at = now() WHERE revocation_id = %s", receipts[0])
        assert said(0)["state"] == "failed" and said(0)["deliveries"][0]["done_at"] is None
        wait_until(lambda: said(1)["deliveries"][0]["delivery_id"], "the second's delivery")
        site.sql("DELETE FROM jitrca.notification WHERE revocation_id = %s", receipts[1])  # as if there had been no room
        assert said(1)["state"] == "not_sent"
        assert site.boss.get(f"/v1/revocations/{receipts[1]}", headers={"Prefer": "wait=20"}).json()["complete"]
    finally:
        site.hook.mode = "ok"


def test_the_command_line_tests_lists_and_retries(site):
    def run(*command, check=True):
        return site.stack.run("notify", *command, "--url", site.stack.url, "--ca-bundle", site.stack.ca_bundle,
                              "--token-file", site.stack.data / "admin.token", check=check)

    before = len(site.hook.kept.all())
    result = run("test", "hook")
    assert "sent" in result.stdout
    assert any(b"notification_test" in one[2] for one in site.hook.kept.all()[before:])
    site.bad.mode = "gone"
    result = run("test", "bad", check=False)
    assert result.returncode == 1 and "answered 410" in result.stderr
    site.bad.mode = "ok"
    result = run("test", "nobody", check=False)
    assert result.returncode == 1 and "notify_channel_unknown" in result.stderr
    listed = run("list", "--channel", "bad", "--state", "waiting").stdout
    assert "notification_test" in listed and "notify_refused" in listed
    number, = [row["notification_id"] for row in site.rows(channel="bad", state="waiting")]
    assert "answered 410" in run("show", number).stdout
    run("retry", "--notification-id", number)
    wait_until(lambda: not site.rows(channel="bad", state="waiting"), "sent")
    assert "away" in run("channels").stdout
    assert run("test", check=False).returncode == 2


def test_lists_page_and_refuse_what_is_wrong(site):
    first = site.boss.get("/v1/notifications", params={"limit": 2}).json()
    second = site.boss.get("/v1/notifications", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    ids = [row["notification_id"] for page in (first, second) for row in page["notifications"]]
    assert len(set(ids)) == 4
    full = site.boss.get(f"/v1/notifications/{ids[0]}").json()
    assert full["message"]["id"] == ids[0]
    for path, params, wanted in [("/v1/notifications", {"state": "odd"}, "state_unknown"),
                                 ("/v1/notifications/zz", {}, "notification_unknown")]:
        answer = site.boss.get(path, params=params)
        assert code(answer) == wanted
    answer = site.boss.post("/v1/notifications/retry", json={"notification_id": ids[0], "channel": "hook"})
    assert code(answer) == "fields_exclusive"
    assert "jitrca_notifications_total{" in site.boss.get("/metrics").text


def test_a_reload_takes_a_good_file_and_refuses_a_bad_one(site):
    site.file.write_text('{"channels": {},\n"rules": [{"channels": ["nobody"]}]}')
    site.stack.process.send_signal(signal.SIGHUP)
    wait_until(lambda: any(event.get("code") == "notify_invalid" for event in site.stack.events()), "a refusal")
    site.wait_sent(site.event("hook_still_served"))
    site.rules.append({"channels": ["hook"], "kinds": ["new_kind"]})
    site.write()
    frontend = site.stack.pids()["frontend"]
    site.stack.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not alive(frontend), "the end of the old frontend, which routes by the old rules")
    site.stack.wait_ready()
    site.wait_sent(site.event("new_kind"))


def test_no_secret_is_in_the_log_or_the_database(site):
    log = site.stack.log_path.read_text()
    rows = json.dumps(site.stack.query("SELECT body, error_text FROM jitrca.notification"))
    for secret in (PASSWORD, SECRET, SECRET.removeprefix("whsec_"), SECRET_PLAIN, Sns.KEYS[1]):
        assert secret not in log and secret not in rows
