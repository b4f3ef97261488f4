"""The rotation window as ACME Renewal Information (RFC 9773), beside what the device itself is told."""
import datetime

import pytest

from harness import client
from harness.client import cert_id, code, new_key
from harness.stack import wait_until


def at(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def ask(stack, body_or_id):
    wanted = cert_id(body_or_id["certificate"]) if isinstance(body_or_id, dict) else body_or_id
    with client.Client(stack.device_url, stack.ca_bundle) as anyone:
        return anyone.get(f"/acme/renewal-info/{wanted}")


def test_it_is_the_window_that_the_device_is_told(stack):
    key = new_key()
    with client.admin(stack) as boss:
        body = boss.issue("ari-1", key).json()
        answer = ask(stack, body)
        assert answer.status_code == 200 and 0 < int(answer.headers["Retry-After"]) <= 6 * 3600
        window = answer.json()["suggestedWindow"]
        with client.device(stack, key, body) as device:
            assert device.get("/v1/rotation").json()["window"] == window
        assert at(window["start"]) < at(window["end"])
        # A campaign moves both alike.
        campaign = boss.post("/v1/campaigns", json={"selector": {"device_ids": ["ari-1"]}, "pace_per_hour": 1000000,
                                                    "canary": {"soak_s": 1000000}}).json()
        with client.device(stack, key, body) as device:
            wait_until(lambda: device.get("/v1/rotation").json()["due"], "due")
            told = device.get("/v1/rotation").json()
        called = ask(stack, body)
        assert told["reason"] == "campaign"
        assert abs(at(called.json()["suggestedWindow"]["start"]) - at(told["window"]["start"])).total_seconds() < 5
        assert int(called.headers["Retry-After"]) <= 600
        assert boss.post(f"/v1/campaigns/{campaign['campaign_id']}/abort").status_code == 200
        assert ask(stack, body).json()["suggestedWindow"] == window
        # What is revoked should have been renewed: the window is over (section 4.2).
        assert boss.post(f"/v1/certificates/{body['certificate_id']}/revoke", json={"reason": "superseded"}).status_code == 200
        over = ask(stack, body).json()["suggestedWindow"]
        assert at(over["start"]) < at(over["end"]) <= datetime.datetime.now(datetime.timezone.utc)


BAD = [("x", 400, "renewal_id_malformed"), ("AAAA.", 400, "renewal_id_malformed"),
       ("AAAA.AAA=", 400, "renewal_id_malformed"), ("AA+A.AAAA", 400, "renewal_id_malformed"),
       ("AAAA.AAB", 400, "renewal_id_malformed"), ("A" * 200 + ".AAAA", 400, "renewal_id_malformed"),
       ("AAAA.AAAA.AAAA", 400, "renewal_id_malformed"), ("AAAA.AAAA", 404, "certificate_unknown"),
       ("AAAA.AQAAAAAAAAAAAAAAAAAAAA", 404, "certificate_unknown")]


@pytest.mark.parametrize("wanted,status,want", BAD)
def test_what_is_no_certificate_of_ours(stack, wanted, status, want):
    answer = ask(stack, wanted)
    assert (answer.status_code, code(answer)) == (status, want), answer.text


def test_a_serial_that_was_never_issued(stack):
    with client.admin(stack) as boss:
        body = boss.issue("ari-2").json()
    key_id, serial = cert_id(body["certificate"]).split(".")
    answer = ask(stack, f"{key_id}.{serial[:-2]}AA" if not serial.endswith("AA") else f"{key_id}.{serial[:-3]}BAA")
    assert answer.status_code == 404 and code(answer) == "certificate_unknown"
