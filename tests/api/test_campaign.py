"""Rotation campaigns: whom they name, how they move, when they halt; no device is ever without a certificate."""
import concurrent.futures
import json
import os

import pytest

from harness import client
from harness.client import code, csr_pem, new_key
from harness.stack import Stack, wait_until

LONG = bool(os.environ.get("JITRCA_TEST_LONG"))
# Everything at once: what is tested is the order of things, not the clock.
FAST = {"canary": {"devices": 3, "soak_s": 0}, "wave": {"percent": 20}, "pace_per_hour": 10000000}


class Device:
    """One simulated device. It keeps its key and its certificate, and rotates when it is told to."""

    def __init__(self, stack, device_id):
        self.stack, self.id, self.key = stack, device_id, new_key()
        self.certificate = None
        self.rotations = 0

    def call(self):
        return client.device(self.stack, self.key, self.certificate)

    def turn(self, confirms=True):
        """Asks; rotates if it is due. The certificate that it has works, before and after."""
        with self.call() as link:
            answer = link.get("/v1/rotation")
            assert answer.status_code == 200, (self.id, answer.text)
            if not answer.json()["due"]:
                return answer.json()
            assert answer.json()["reason"] == "campaign" and answer.json()["retry_after_s"] == 0
            key = new_key()
            fresh = link.post("/v1/rotation", json={"csr": csr_pem(key)})
            assert fresh.status_code == 201, (self.id, fresh.text)
            assert link.get("/v1/rotation").status_code == 200  # the old one still works
            if not confirms:
                return answer.json()
            self.key, self.certificate = key, fresh.json()
            with self.call() as new:
                assert new.get("/v1/rotation").status_code == 200  # both work
                assert link.get("/v1/rotation").status_code == 200
                assert new.post("/v1/rotation/confirm").status_code == 200
                assert new.get("/v1/rotation").status_code == 200
        self.rotations += 1
        return answer.json()


def make_fleet(stack, prefix, count, **fields):
    devices = [Device(stack, f"{prefix}-{number}") for number in range(count)]
    with client.admin(stack) as boss:
        for start in range(0, count, 500):
            part = devices[start:start + 500]
            answer = boss.post("/v1/certificates/batch", json={"requests": [
                {"csr": csr_pem(one.key), "device_id": one.id, **fields} for one in part]})
            assert answer.status_code == 200, answer.text
            for one, result in zip(part, answer.json()["results"]):
                one.certificate = result["certificate"]
    return devices


@pytest.fixture(scope="module")
def fleet(cluster):
    """A stack of its own, with devices that no campaign of these tests names."""
    with Stack(cluster) as it:
        make_fleet(it, "bystander", 3, thing_type="bystander")
        yield it


def begin(boss, want=202, **body):
    answer = boss.post("/v1/campaigns", json=body)
    assert answer.status_code == want, answer.text
    return answer.json()


def show(boss, campaign):
    return boss.get(f"/v1/campaigns/{campaign['campaign_id']}").json()


def wait_state(boss, campaign, state):
    try:
        return wait_until(lambda: (it := show(boss, campaign))["state"] == state and it, state)
    except TimeoutError:
        raise AssertionError(show(boss, campaign)) from None


def crowd(devices, confirms=lambda one: True):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda one: one.turn(confirms(one)), devices))


def play(boss, campaign, devices, confirms=lambda one: True):
    """
    The devices ask until the campaign ends, one way or another. Those whose turn has come by the campaign's own
    account, so that not all are asked all the time; what the others are told is tried elsewhere.
    """
    by_id = {one.id: one for one in devices}
    url = f"/v1/campaigns/{campaign['campaign_id']}"

    def over():
        it = show(boss, campaign)
        if it["state"] not in ("filling", "running"):
            return it
        page = boss.get(url + "/members", params={"state": "waiting", "limit": 1000}).json()["members"]
        crowd([by_id[m["device_id"]] for m in page if m["asked"] and m["device_id"] in by_id
               and not by_id[m["device_id"]].rotations], confirms)
        return None
    return wait_until(over, "the campaign's end", 600)


def test_a_campaign_rotates_all_that_it_names_and_ends(fleet):
    count = 5000 if LONG else 300
    devices = make_fleet(fleet, "whole", count, thing_type="pump")
    with client.admin(fleet) as boss:
        body = {"selector": {"thing_type": "pump"}, **FAST}
        forecast = begin(boss, 200, **body, dry_run=True)
        assert forecast["dry_run"] and forecast["members"] == count + 3, "at most: the filter alone is counted"
        campaign = begin(boss, **body, comment="new CA")
        end = play(boss, campaign, devices)
        assert end["state"] == "done" and end["progress"]["confirmed"] == count == end["members"] == end["asked"]
        assert all(one.rotations == 1 for one in devices)
        assert {d["device_id"] for d in boss.get("/v1/devices?thing_type=bystander").json()["devices"]} == \
            {f"bystander-{n}" for n in range(3)}
        steps = [record["action"] for record in boss.get(
            "/v1/audit", params={"object": f"campaign:{campaign['campaign_id']}"}).json()["records"]]
        assert steps[:2] == ["campaign.begin", "campaign.start"] and steps[-1] == "campaign.done"
        assert steps.count("campaign.wave") >= 5
        assert any(event["kind"] == "campaign_done" for event in boss.get("/v1/events").json()["events"])
        page = boss.get(f"/v1/campaigns/{campaign['campaign_id']}/members?state=confirmed&limit=200").json()
        rest = boss.get(f"/v1/campaigns/{campaign['campaign_id']}/members",
                        params={"state": "confirmed", "limit": 1000, "cursor": page["next_cursor"]}).json()
        if not LONG:
            assert len({m["device_id"] for m in page["members"] + rest["members"]}) == count


def test_firmware_that_never_confirms_halts_before_five_percent(fleet):
    devices = make_fleet(fleet, "broken", 300, thing_type="valve")
    with client.admin(fleet) as boss:
        campaign = begin(boss, selector={"thing_type": "valve"}, pace_per_hour=10000000, canary={"soak_s": 0},
                         halt={"confirm_within_s": 1})
        end = play(boss, campaign, devices, lambda one: False)
        assert end["state"] == "halted" and "have not confirmed" in end["why"]
        touched = fleet.query("SELECT count(*) FROM jitrca.certificate WHERE status = 'pending_confirmation'"
                              " AND device_id LIKE 'broken-%%'")[0][0]
        assert 0 < touched < 15 and end["asked"] < 15
        assert not any(answer["due"] for answer in crowd(devices[:40])), "nobody else is asked"
        assert any(event["kind"] == "campaign_halted" and event["severity"] == "high"
                   for event in boss.get("/v1/events").json()["events"])
        resumed = boss.post(f"/v1/campaigns/{campaign['campaign_id']}/resume", json={"reason": "firmware 2.1"})
        assert resumed.json()["state"] == "running" and resumed.json()["stage"] == "canary"
        again = play(boss, campaign, devices, lambda one: False)
        assert again["state"] == "halted" and again["asked"] < 15, "another canary, and no more"
        assert boss.post(f"/v1/campaigns/{campaign['campaign_id']}/abort", json={}).json()["state"] == "aborted"


@pytest.mark.long  # half a minute of rotations; in the short form the fault is there from the start
def test_a_fault_that_begins_late_halts_as_soon(fleet):
    """After half of the fleet went well: one wave may be in the middle at most."""
    devices = make_fleet(fleet, "late", 300, thing_type="meter")
    with client.admin(fleet) as boss:
        # The good ones are asked first: their ranks are the lowest.
        campaign = begin(boss, selector={"thing_type": "meter"}, pace_per_hour=10000000,
                         canary={"devices": 3, "soak_s": 0}, wave={"devices": 6}, halt={"confirm_within_s": 10})
        wait_state(boss, campaign, "running")
        ids = [m["device_id"] for m in boss.get(
            f"/v1/campaigns/{campaign['campaign_id']}/members?limit=1000").json()["members"]]
        good = set(ids[:60])
        end = play(boss, campaign, devices, lambda one: one.id in good)
        assert end["state"] == "halted", end
        touched = fleet.query("SELECT count(*) FROM jitrca.certificate WHERE status = 'pending_confirmation'"
                              " AND device_id LIKE 'late-%%'")[0][0]
        assert 3 <= touched < 15
        assert boss.post(f"/v1/campaigns/{campaign['campaign_id']}/abort", json={}).status_code == 200


def test_a_canary_waits_for_its_soak_and_its_confirmations(fleet):
    devices = make_fleet(fleet, "soak", 20, thing_type="soak")
    with client.admin(fleet) as boss:
        campaign = begin(boss, selector={"thing_type": "soak"}, pace_per_hour=10000000,
                         canary={"devices": 2, "soak_s": 1000}, wave={"devices": 18})
        wait_until(lambda: show(boss, campaign)["asked"] == 2, "the canary is asked")
        crowd(devices)
        it = wait_until(lambda: (c := show(boss, campaign))["progress"]["confirmed"] == 2 and c, "confirmed")
        assert it["waits_for"] == "canary" and it["state"] == "running" and it["asked"] == 2
        fleet.query("UPDATE jitrca.campaign SET wave_at = wave_at - interval '940 seconds' WHERE campaign_id = %s"
                    " RETURNING 1", campaign["campaign_id"])
        # Another, begun later, is over: a round has looked at this one, which has a minute to wait.
        other = begin(boss, selector={"attributes": {"site": "nowhere"}})
        assert wait_state(boss, other, "aborted")["why"] == "campaign_empty"
        assert show(boss, campaign)["asked"] == 2
        crowd(devices)
        fleet.query("UPDATE jitrca.campaign SET wave_at = wave_at - interval '1000 seconds' WHERE campaign_id = %s"
                    " RETURNING 1", campaign["campaign_id"])
        assert play(boss, campaign, devices)["state"] == "done"


def test_paused_nobody_is_asked_and_the_rest_after_it(fleet):
    devices = make_fleet(fleet, "pause", 10, thing_type="pause")
    with client.admin(fleet) as boss:
        campaign = begin(boss, selector={"thing_type": "pause"}, canary={"devices": 1, "soak_s": 100000},
                         pace_per_hour=10000000)
        url = f"/v1/campaigns/{campaign['campaign_id']}"
        wait_until(lambda: show(boss, campaign)["asked"] == 1, "the canary is asked")
        paused = boss.post(url + "/pause", json={"reason": "night"}).json()
        assert paused["state"] == "paused" and paused["why"] == "night"
        assert not any(answer["due"] for answer in crowd(devices))
        assert boss.post(url + "/pause", json={}).json()["state"] == "paused"
        assert boss.post(url + "/resume", json={}).json()["state"] == "running"
        assert sum(answer["due"] for answer in crowd(devices)) == 1
        assert boss.post(url + "/abort", json={}).json()["state"] == "aborted"
        refused = boss.post(url + "/resume", json={})
        assert refused.status_code == 409 and code(refused) == "campaign_state"
        assert not any(answer["due"] for answer in crowd(devices))


def test_it_goes_on_after_a_kill(fleet):
    devices = make_fleet(fleet, "kill", 30, thing_type="kill")
    with client.admin(fleet) as boss:
        campaign = begin(boss, selector={"thing_type": "kill"}, **FAST)
    fleet.stop(9)
    fleet.start()
    with client.admin(fleet) as boss:
        end = play(boss, campaign, devices)
        assert end["state"] == "done" and end["progress"]["confirmed"] == 30


def test_a_device_that_is_gone_holds_nobody_up(fleet):
    devices = make_fleet(fleet, "gone", 5, thing_type="gone")
    with client.admin(fleet) as boss:
        campaign = begin(boss, selector={"device_ids": [one.id for one in devices]}, **FAST)
        wait_state(boss, campaign, "running")
        assert boss.post(f"/v1/devices/{devices[0].id}/decommission", json={}).status_code == 200
        end = play(boss, campaign, devices[1:])
        assert end["state"] == "done" and end["progress"]["gone"] == 1 and end["progress"]["confirmed"] == 4


BAD = [
    ({"selector": {}}, 400, "selector_empty"),
    ({}, 400, "field_missing"),
    ({"selector": {"colour": "red"}}, 400, "field_unknown"),
    ({"selector": {"key_type": "dsa"}}, 400, "selector_field"),
    ({"selector": {"ca": "nobody"}}, 400, "selector_field"),
    ({"selector": {"everything": False}}, 400, "selector_field"),
    ({"selector": {"attributes": {}}}, 400, "selector_field"),
    ({"selector": {"device_ids": []}}, 400, "selector_field"),
    ({"selector": {"device_ids": ["a"], "profile": "device"}}, 400, "selector_field"),
    ({"selector": {"device_ids": ["nobody-1"]}}, 404, "device_unknown"),
    ({"selector": {"issued_before": "2001-01-01T00:00:00Z"}}, 409, "campaign_empty"),
    ({"selector": {"issued_before": "2999-01-01T00:00:00Z"}}, 409, "campaign_everything"),
    ({"selector": {"profile": "device"}}, 409, "campaign_everything"),
    ({"selector": {"everything": True}, "pace_per_hour": 0}, 400, "field_out_of_range"),
    ({"selector": {"everything": True}, "halt": {"percent": 41}}, 400, "field_out_of_range"),
    ({"selector": {"everything": True}, "canary": {"devices": 0}}, 400, "field_out_of_range"),
]


@pytest.mark.parametrize("body,status,want", BAD, ids=[f"{want}-{n}" for n, (_, _, want) in enumerate(BAD)])
def test_what_is_refused(fleet, body, status, want):
    with client.admin(fleet) as boss:
        answer = boss.post("/v1/campaigns", json=body)
        assert (answer.status_code, code(answer)) == (status, want), answer.text


def test_everything_with_the_word_is_everything(fleet):
    with client.admin(fleet) as boss:
        forecast = begin(boss, 200, selector={"everything": True}, dry_run=True)
        assert forecast["members"] >= 3


def test_two_campaigns_over_one_device_are_refused(fleet):
    make_fleet(fleet, "twice", 4, thing_type="twice", attributes={"site": "north"})
    slow = {"canary": {"devices": 1, "soak_s": 100000}}
    with client.admin(fleet) as boss:
        first = begin(boss, selector={"thing_type": "twice"}, **slow)
        wait_state(boss, first, "running")
        for selector in ({"device_ids": ["twice-2"]}, {"device_id": "twice-2"}):
            answer = boss.post("/v1/campaigns", json={"selector": selector})
            assert answer.status_code == 409 and code(answer) == "campaign_overlap"
        # What is looked at one by one shows when the members are frozen.
        second = begin(boss, selector={"attributes": {"site": "north"}})
        assert wait_state(boss, second, "aborted")["why"] == "campaign_overlap"
        empty = begin(boss, selector={"attributes": {"site": "south"}})
        assert wait_state(boss, empty, "aborted")["why"] == "campaign_empty"
        rsa = begin(boss, selector={"key_type": "rsa-2048"})
        assert wait_state(boss, rsa, "aborted")["why"] == "campaign_empty"
        assert boss.post(f"/v1/campaigns/{first['campaign_id']}/abort", json={}).status_code == 200
        third = begin(boss, selector={"attributes": {"site": "north"}, "key_type": "ec-p256"}, **slow)
        assert wait_state(boss, third, "running")["members"] == 4
        listed = boss.get("/v1/campaigns?limit=1000").json()["campaigns"]
        assert {first["campaign_id"], third["campaign_id"]} <= {one["campaign_id"] for one in listed}
        assert boss.post(f"/v1/campaigns/{third['campaign_id']}/abort", json={}).status_code == 200


def test_who_is_not_asked_yet_comes_back_in_time(fleet):
    devices = make_fleet(fleet, "slow", 4, thing_type="slow")
    with client.admin(fleet) as boss:
        campaign = begin(boss, selector={"thing_type": "slow"}, canary={"devices": 1, "soak_s": 0}, pace_per_hour=1)
        wait_state(boss, campaign, "running")
        for answer in crowd(devices):
            assert not answer["due"] and 60 <= answer["retry_after_s"] <= 4 * 3600
            assert json.dumps(answer) and answer["window"]["start"] <= answer["window"]["end"]
        # An hour later the first is asked.
        fleet.query("UPDATE jitrca.campaign SET moved_at = moved_at - interval '3590 seconds' WHERE campaign_id = %s"
                    " RETURNING 1", campaign["campaign_id"])
        assert show(boss, campaign)["asked"] == 0
        assert show(boss, campaign)["waits_for"] == "pace"
        assert boss.post(f"/v1/campaigns/{campaign['campaign_id']}/abort", json={}).status_code == 200


def test_a_campaign_is_an_administrators(fleet):
    with client.admin(fleet) as boss:
        assert boss.post("/v1/principals", json={"id": "watcher", "role": "operator"}).status_code == 201
        token = boss.post("/v1/principals/watcher/tokens", json={}).json()["token"]
        unknown = boss.get("/v1/campaigns/" + "0" * 32)
        assert unknown.status_code == 404 and code(unknown) == "campaign_unknown"
        assert code(boss.get("/v1/campaigns/..x")) == "campaign_unknown"
        damaged = boss.get("/v1/campaigns?cursor=AAAA")
        assert code(damaged) == "cursor_malformed"
    with client.Client(fleet.url, fleet.ca_bundle, token=token) as watcher:
        assert watcher.get("/v1/campaigns").status_code == 200
        refused = watcher.post("/v1/campaigns", json={"selector": {"everything": True}})
        assert refused.status_code == 403 and code(refused) == "role_not_allowed"
