"""Quotas hold under concurrency and over several servers (invariant 14)."""
import threading

from harness import client
from harness.client import csr_pem, new_key
from harness.stack import Stack

ASKERS = 200


def test_invariant_14_two_hundred_requests_for_the_last_unit_on_two_servers(cluster):
    # All come from one address.
    limits = {"connections_per_address_max": 2 * ASKERS}
    with Stack(cluster, config=limits) as first:
        second = Stack(cluster, share=first, config=limits)
        try:
            second.start()
            names = [f"race-{i}" for i in range(ASKERS + 1)]
            with client.station(first, "st-race", device_ids=names, quantity=2) as st:
                assert st.issue(names[ASKERS]).status_code == 201
                token = st.session.headers["Authorization"].split()[1]
            bodies = [{"csr": csr_pem(new_key()), "device_id": name} for name in names[:ASKERS]]
            answers = [None] * ASKERS
            start = threading.Barrier(ASKERS)

            def ask(number):
                stack = (first, second)[number % 2]
                with client.Client(stack.url, first.ca_bundle, token=token) as one:
                    assert one.get("/v1/stations/self").status_code == 200
                    start.wait(60)  # all links stand: what follows is at once
                    answers[number] = one.post("/v1/certificates", json=bodies[number])

            threads = [threading.Thread(target=ask, args=(n,)) for n in range(ASKERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert None not in answers
            results = [answer.status_code for answer in answers]
            assert results.count(201) == 1, sorted(set(results))
            assert set(results) == {201, 429}
            assert {client.code(answer) for answer in answers if answer.status_code == 429} == {"quota_exhausted"}
            assert first.query("SELECT used FROM jitrca.manifest WHERE station_id = 'st-race'") == [(2,)]
            assert first.query("SELECT count(*) FROM jitrca.certificate WHERE manifest_id IS NOT NULL") == [(2,)]
            assert first.query("SELECT count(*) FROM jitrca.intent") == [(0,)]
        finally:
            second.stop()
            second.close()
