"""Quotas hold under concurrency and over several servers (invariant 14)."""
import concurrent.futures

from harness import client
from harness.client import new_key
from harness.stack import Stack


def test_invariant_14_two_hundred_requests_for_the_last_unit_on_two_servers(cluster):
    with Stack(cluster) as first:
        second = Stack(cluster, share=first)
        second.__enter__()
        try:
            names = [f"race-{i}" for i in range(201)]
            with client.station(first, "st-race", device_ids=names, quantity=2) as st:
                assert st.issue(names[200]).status_code == 201
                token = st.session.headers["Authorization"].split()[1]

            def ask(number):
                stack = (first, second)[number % 2]
                with client.Client(stack.url, first.ca_bundle, token=token) as one:
                    return one.issue(names[number], new_key()).status_code

            with concurrent.futures.ThreadPoolExecutor(50) as pool:
                results = list(pool.map(ask, range(200)))
            assert results.count(201) == 1, sorted(set(results))
            assert set(results) == {201, 429}
            assert first.query("SELECT used FROM jitrca.manifest WHERE station_id = 'st-race'") == [(2,)]
        finally:
            second.stop()
            second.close()
