"""/metrics, held to the text format of Prometheus, and whether its counters follow what is done."""
import re

import requests

from harness import client
from harness.client import csr_pem, new_key

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}


def labels_of(text):
    found, end = {}, 0
    while end < len(text):
        match = LABEL.match(text, end)
        assert match, text
        assert match[1] not in found, text
        found[match[1]] = match[2]
        end = match.end()
    return found


def parse(text):
    """{(name, labels): value}; fails on whatever a strict reader would not take."""
    assert text.endswith("\n")
    helps, types, samples, done = set(), {}, {}, set()
    family = None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert NAME.fullmatch(name) and name not in helps and len(line.split(" ", 3)[3]) > 0, line
            helps.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name in helps and name not in types and kind in ("counter", "gauge", "histogram"), line
            assert (kind == "counter") == name.endswith("_total"), line
            types[name] = kind
            done.add(family)
            family = name
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            # The lines of one name stand together, behind their TYPE.
            allowed = [family + suffix for suffix in SUFFIXES.get(types[family], ("",))]
            assert match[1] in allowed and family not in done, line
            key = (match[1], tuple(sorted(labels_of(match[2] or "").items())))
            assert key not in samples, line
            samples[key] = float(match[3])
            assert types[family] == "gauge" or samples[key] >= 0, line
    for name, kind in types.items():
        if kind == "histogram":
            check_histogram(name, samples)
    return samples


def check_histogram(name, samples):
    rows = {}
    for (sample, labels), value in samples.items():
        if sample == name + "_bucket":
            rest = tuple(label for label in labels if label[0] != "le")
            rows.setdefault(rest, []).append((float(dict(labels)["le"].replace("+Inf", "inf")), value))
    for rest, buckets in rows.items():
        values = [value for _, value in sorted(buckets)]
        assert values == sorted(values) and values[-1] == samples[name + "_count", rest]
        assert (name + "_sum", rest) in samples


def read(stack):
    answer = requests.get(f"{stack.http_url}/metrics", timeout=10)
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return parse(answer.text)


def value(samples, name, **labels):
    return samples.get(("jitrca_" + name, tuple(sorted(labels.items()))), 0)


def test_every_family_that_operators_watch_is_there(stack):
    samples = read(stack)
    with client.admin(stack) as boss:
        ca = next(one["id"] for one in boss.get("/v1/cas").json()["cas"] if one["can_sign"])
    assert value(samples, "build_info", version=stack.run("version").stdout.split()[1].rstrip(",")) == 1
    assert value(samples, "signer_up") == 1 and value(samples, "signer_starts_total") >= 1
    assert value(samples, "db_session_up") == 1
    assert 1 <= value(samples, "db_pool_connections", state="open") <= \
        value(samples, "db_pool_connections", state="max")
    assert value(samples, "ca_expires_in_days", ca=ca) > 300
    assert value(samples, "crl_missing", ca=ca) == 0
    assert 0 <= value(samples, "crl_oldest_age_seconds", ca=ca) < 3600
    assert value(samples, "crl_expires_in_seconds", ca=ca) > 0
    assert value(samples, "crl_published_total") >= 257
    assert value(samples, "leader") == 1
    assert ("jitrca_issuance_queue", ()) in samples and ("jitrca_intents_closed_total", ()) in samples


def test_counters_move_with_what_is_done(stack):
    def moved(name, **labels):
        return value(after, name, **labels) - value(before, name, **labels)

    key = new_key()
    before = read(stack)
    with client.admin(stack) as boss:
        first = boss.issue("metrics-1", key)
        assert first.status_code == 201
        assert boss.issue("metrics-1", key).status_code == 200
        assert boss.issue("metrics-2", key).status_code == 409
        bad = csr_pem(new_key()).replace("CERTIFICATE REQUEST", "CERTIFICATE")
        assert boss.post("/v1/certificates", json={"csr": bad, "device_id": "metrics-3"}).status_code == 400
        revoked = boss.post(f"/v1/certificates/{first.json()['certificate_id']}/revoke",
                            json={"reason": "keyCompromise"})
        assert revoked.status_code == 200
        again = boss.post(f"/v1/certificates/{first.json()['certificate_id']}/revoke",
                          json={"reason": "keyCompromise"})
        assert again.status_code == 200
    assert requests.get(f"{stack.url}/v1/devices", verify=stack.ca_bundle, timeout=10,
                        headers={"Authorization": "Bearer nobody"}).status_code == 401
    after = read(stack)
    assert moved("issuance_total", profile="device", result="issued") == 1
    assert moved("issuance_total", profile="device", result="replayed") == 1
    assert moved("issuance_total", profile="device", result="refused") >= 1
    assert moved("issuance_refused_total", code="public_key_in_use") == 1
    assert moved("cloned_keys_total") == 1
    assert moved("problems_total", code="public_key_in_use") == 1
    # Its second date changes nothing and counts nothing.
    assert moved("revoked_total", reason="keyCompromise") == 1
    assert moved("auth_failed_total") == 1
    assert moved("audit_records_total") == 2
    assert moved("issuance_batches_total") >= 3
    assert moved("issuance_stage_seconds_total", stage="record") > 0
    assert moved("http_requests_total", method="POST", route="/v1/certificates", status="201") == 1
    assert value(after, "issuance_queue") == 0
