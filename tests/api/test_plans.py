"""Rotation plans: what expires when, by profile and thing type, and who is late; on demand and by schedule."""
import datetime

from harness import client
from harness.client import code
from harness.stack import Stack, wait_until


def week_of(text):
    day = datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).date()
    return (day - datetime.timedelta(days=day.weekday())).isoformat() + "T00:00:00Z"


def test_a_plan_counts_what_expires_and_who_is_late(cluster):
    profiles = {"device": {"validity": {"default": "20d", "max": "60d", "backdate": "1s"},
                           "renewal": {"before": "15d", "overlap": "5d", "grace": "1d"}}}
    with Stack(cluster, profiles=profiles) as it, client.admin(it) as boss:
        # By schedule: the first one at once, for there is none.
        first = wait_until(lambda: boss.get("/v1/plans").json()["plans"], "a plan by schedule")
        assert [plan["actor"] for plan in first] == ["server"] and first[0]["expiring"] == 0
        bodies = [boss.issue(f"plan-{n}", thing_type="pump" if n < 3 else "valve").json() for n in range(4)]
        late = boss.issue("plan-late", validity_hours=4 * 24).json()
        beyond = boss.issue("plan-beyond", validity_hours=31 * 24).json()
        made = boss.post("/v1/plans")
        assert made.status_code == 201, made.text
        plan = made.json()
        assert plan["threshold_days"] == 30 and plan["expiring"] == 5 and plan["late"] == 1
        assert plan["latest"] == ["plan-late"] and plan["groups_more"] is False
        week = week_of(bodies[0]["not_after"])
        groups = {(g["week"], g["thing_type"]): g["devices"] for g in plan["groups"]}
        assert groups == {(week, "pump"): 3, (week, "valve"): 1, (week_of(late["not_after"]), ""): 1}
        assert boss.get(f"/v1/plans/{plan['plan_id']}").json() == plan
        # The threshold's edge, moved in the row of what lies beyond it.
        assert boss.post("/v1/plans", json={"threshold_days": 32}).json()["expiring"] == 6
        assert boss.post("/v1/plans", json={"threshold_days": 3}).json()["expiring"] == 0
        assert beyond["device_id"] == "plan-beyond"
        page = boss.get("/v1/plans?limit=2").json()
        rest = boss.get("/v1/plans", params={"cursor": page["next_cursor"]}).json()
        assert len(page["plans"]) == 2 and len(rest["plans"]) == 2 and rest["plans"][-1]["actor"] == "server"
        told = [event for event in boss.get("/v1/events?kind=rotation_plan").json()["events"]]
        assert len(told) == 4
        unknown = boss.get("/v1/plans/" + "0" * 32)
        assert unknown.status_code == 404 and code(unknown) == "plan_unknown"
        assert code(boss.post("/v1/plans", json={"threshold_days": 0})) == "field_out_of_range"
