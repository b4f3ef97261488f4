"""A transaction that meets a deadlock is run again, whatever was asked; nobody hears of it."""
import contextlib

import pytest
from harness import client
from harness.client import code, new_key
from harness.stack import Stack, wait_until


@pytest.fixture(scope="module")
def own(cluster):
    with Stack(cluster) as it:
        yield it


@contextlib.contextmanager
def deadlocks(stack, table, times):
    """The next changes of a table fail as PostgreSQL's deadlock detector would have them fail."""
    with stack.db() as connection:
        cursor = connection.cursor()
        # A sequence is not rolled back with the transaction that drew from it.
        cursor.execute(f"""
            CREATE SEQUENCE public.unlucky;
            CREATE FUNCTION public.unlucky() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF nextval('public.unlucky') <= {times} THEN
                    RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01';
                END IF;
                RETURN NULL;
            END $$;
            CREATE TRIGGER unlucky AFTER INSERT OR UPDATE ON jitrca.{table}
                FOR EACH STATEMENT EXECUTE FUNCTION public.unlucky()""")
        try:
            yield lambda: stack.query("SELECT last_value FROM public.unlucky")[0][0]
        finally:
            cursor.execute(f"""DROP TRIGGER unlucky ON jitrca.{table};
                               DROP FUNCTION public.unlucky; DROP SEQUENCE public.unlucky""")


def test_each_resource_is_tried_again(own):
    with client.admin(own) as boss:
        with deadlocks(own, "principal", 3) as drawn:
            assert boss.post("/v1/stations", json={"id": "retry-st"}).status_code == 201
            assert drawn() == 4
        assert boss.post("/v1/manifests", json={"id": "retry-m", "station": "retry-st", "profile": "device",
                                                "quantity": 10}).status_code == 201
        ids = "device_id\n" + "".join(f"retry-{i}\n" for i in range(20000))
        with deadlocks(own, "manifest_line", 3):
            # Each try reads the upload from its start.
            added = boss.request("PUT", "/v1/manifests/retry-m/devices", data=ids,
                                 headers={"Content-Type": "text/csv"})
            assert added.status_code == 200 and added.json()["added"] == 20000, added.text
        with deadlocks(own, "intent", 3):
            assert boss.issue("retry-1", new_key()).status_code == 201
        with deadlocks(own, "device", 3):
            assert boss.post("/v1/devices/retry-1/quarantine", json={}).status_code == 200
        with deadlocks(own, "crl_scope", 3):
            gone = boss.post("/v1/devices/retry-1/decommission", json={})
            assert gone.status_code == 200 and gone.json()["certificates"][0]["status"] == "revoked"
        # Once each, in spite of the tries.
        for action in ("station.create", "device.quarantine", "device.decommission"):
            records = boss.get("/v1/audit", params={"action": action}).json()["records"]
            assert len(records) == 1, action


def test_but_not_for_ever(own):
    with client.admin(own) as boss, deadlocks(own, "principal", 1000) as drawn:
        refused = boss.post("/v1/stations", json={"id": "retry-never"})
        assert refused.status_code == 503 and code(refused) == "database_retry"
        assert int(refused.headers["Retry-After"]) >= 1 and drawn() == 5


def test_a_bulk_revocation_goes_on(own):
    with client.admin(own) as boss:
        for i in range(5):
            assert boss.issue(f"retry-bulk-{i}", new_key()).status_code == 201
        with deadlocks(own, "revocation", 7) as drawn:
            begun = boss.post("/v1/revocations", json={"selector": {"profile": "device", "all": True}, "reason": "keyCompromise"})
            assert begun.status_code == 202, begun.text
            url = "/v1/revocations/" + begun.json()["revocation_id"]
            wait_until(lambda: boss.get(url).json()["state"] == "done", "the bulk revocation")
            assert drawn() >= 8
        assert boss.get(url).json()["revoked"] == 5
