"""The section "crl": lists with a million entries, and how soon one more revocation is seen."""
import hashlib
import subprocess
import time

import requests

from harness import client
from harness.stack import wait_until
from revoked import Party, fill_revocations, settled, watch

from measure import Meter, Peak, bare_server, load, quantiles

SHARD_MAX = 1024 * 1024
NEVER = 600


def read_and_hash(stack, size):
    """The limit: the rows by COPY, then as many octets hashed."""
    psql = stack.cluster.bin / "psql"
    start = time.monotonic()
    subprocess.run([str(psql), "-qXd", stack.database_url, "-c",
                    "COPY (SELECT serial, revoked_at, reason FROM jitrca.revocation) TO STDOUT (FORMAT binary)"],
                   stdout=subprocess.DEVNULL, check=True)
    copied = time.monotonic() - start
    start = time.monotonic()
    hashlib.sha256(bytes(size)).digest()
    return {"copy_s": copied, "hash_s": time.monotonic() - start}


def newest(stack):
    return stack.query("SELECT max(last_number) FROM jitrca.crl_scope WHERE scope = -1 AND published = wanted")[0][0]


def rebuild(stack, boss, number):
    """One full list, from the revocation that wakes the job to its publication."""
    body = boss.issue(f"rebuild-{number}").json()
    before = stack.query("SELECT last_number FROM jitrca.crl_scope WHERE scope = -1")[0][0]
    with stack.db() as connection:
        cursor = connection.cursor()
        # However large, it is due.
        cursor.execute("UPDATE jitrca.crl_scope SET next_update = now() WHERE scope = -1")
        start = time.monotonic()
        assert boss.post(f"/v1/certificates/{body['certificate_id']}/revoke", json={"reason": "superseded"}).status_code == 200
        while True:
            cursor.execute("SELECT last_number > %s AND published = wanted FROM jitrca.crl_scope WHERE scope = -1", (before,))
            if cursor.fetchone()[0]:
                return time.monotonic() - start
            assert time.monotonic() - start < NEVER
            time.sleep(0.005)  # the figure's resolution


def full_list(bench, stack, count):
    """Time and memory of the full list with count entries; its octets, as they are served."""
    pids = stack.pids()
    with client.admin(stack) as boss:
        url = f"{stack.http_url}/crl/{boss.issue(f'warm-{count}').json()['ca']}.crl"
        rebuild(stack, boss, f"{count}-warm")
        der = requests.get(url, timeout=60).content

        def once():
            limit = read_and_hash(stack, len(der))
            with Peak(pids["frontend"], pids["signer"]) as peak, Meter(stack) as meter:
                took = rebuild(stack, boss, f"{count}-{time.monotonic_ns()}")
            return {"seconds": took, **limit, "ratio": took / (limit["copy_s"] + limit["hash_s"]), "peak_growth_mib": peak.mib,
                    "server_cpu_s": meter.server_s, "postgresql_cpu_s": meter.postgresql_s}
        figures = bench.repeat(f"full list with {count} entries", once)
    bench.figure(f"full list, {count} entries", {**figures, "octets": len(der)},
                 f"{figures['seconds']['median']:.2f} s, {len(der) / 1e6:.1f} MB; COPY and hash"
                 f" {figures['copy_s']['median'] + figures['hash_s']['median']:.2f} s;"
                 f" memory + {figures['peak_growth_mib']['median']} MiB")
    bench.must(f"full CRL, {count} entries: time over COPY of the rows and hashing", figures["ratio"]["median"], at_most=1.5)
    bench.must(f"full CRL, {count} entries: extra memory", figures["peak_growth_mib"]["median"], at_most=32, unit=" MiB")
    return url, der


def shards(bench, stack, url):
    sizes = [len(requests.get(f"{url[:-4]}/{shard:02x}.crl", timeout=10).content) for shard in range(256)]
    bench.must("largest of 256 shards", max(sizes) / SHARD_MAX, at_most=1, unit=" MiB")


def download(bench, stack, url, der, what, connections, count):
    """Beside a bare libmicrohttpd that sends the same file."""
    path = url[len(stack.http_url):]
    file = bench.dir / "served.crl"
    file.write_bytes(der)
    with bare_server("file", file) as (address, _):
        def once():
            own = load("get", connect=f"127.0.0.1:{stack.ports['http']}", path=path, connections=connections, count=count)
            bare = load("get", connect=address, path=path, connections=connections, count=count)
            assert own["statuses"] == bare["statuses"] == {"200": count}, (own, bare)
            return {"per_s": own["per_s"], "bare_per_s": bare["per_s"], "ratio": own["per_s"] / bare["per_s"]}
        figures = bench.repeat(f"download of {what}", once)
    bench.figure(f"download of {what}", figures,
                 f"{figures['per_s']['median']:.0f}/s, bare {figures['bare_per_s']['median']:.0f}/s")
    bench.must(f"download of {what} over a bare file reply", figures["ratio"]["median"], at_least=0.8)


def conditional(bench, stack, url):
    first = requests.get(url, timeout=60)
    again = requests.get(url, timeout=60, headers={"If-None-Match": first.headers.get("ETag", "")})
    bench.must_hold("conditional GET answers 304", again.status_code == 304 and not again.content, str(again.status_code))
    figures = load("get", connect=f"127.0.0.1:{stack.ports['http']}", path=url[len(stack.http_url):], connections=8,
                   count=bench.pick(50, 20000), if_none_match=first.headers.get("ETag", "x"))
    bench.figure("conditional GET", figures, f"{figures['per_s']:.0f}/s")


def seen(bench, stack, already):
    """From the request to revoke to its effect, as a relying party sees it."""
    count = bench.pick(3, 40)
    took = {}
    bench.say(f"revoking with {already} revoked")
    with client.admin(stack) as boss:
        for i in range(count):
            body = boss.issue(f"seen-{i}").json()
            party = Party(stack, body)
            targets = {"shard": lambda p=party: p.lists(p.shard)}
            if requests.get(party.delta, timeout=10).status_code != 404:
                targets["delta"] = lambda p=party: p.lists(p.delta)
            if party.ocsp_status() is not None:
                targets["OCSP answer"] = lambda p=party: p.ocsp_status() == "REVOKED"
            start = time.monotonic()
            answer = boss.post(f"/v1/certificates/{body['certificate_id']}/revoke", json={"reason": "superseded"})
            assert answer.status_code == 200, answer.text
            for name, seconds in watch(start, targets).items():
                took.setdefault(name, []).append(seconds)
    for name in ("shard", "delta", "OCSP answer"):
        row = f"from revoke to {name} served, {already} revoked: p99"
        if name not in took:
            bench.skip(row, "<= 1 s", "answers 404")
            continue
        bench.figure(f"revoke to {name}", quantiles([20 if one is None else one for one in took[name]]))
        bench.must(row, quantiles([20 if one is None else one for one in took[name]])["p99_ms"] / 1000, at_most=1, unit=" s")


def grown(bench, stack, first, end):
    """Up to `end` revoked, with the server down meanwhile; all lists published."""
    bench.say(f"filling in {end - first} revocations")
    stack.stop()
    fill_revocations(stack, first, end)
    stack.start()
    bench.say("publishing all lists")
    wait_until(lambda: settled(stack), "all lists", NEVER, 0.1)


def bench_crl(bench):
    few, many = bench.pick((2000, 0), (1_000_000, 4_000_000))
    config = {"crl_debounce": "1ms", "crl_full_immediate_max": "1GiB"}
    with bench.stack(config=config) as stack:
        grown(bench, stack, 0, few)
        url, der = full_list(bench, stack, few)
        shards(bench, stack, url)
        download(bench, stack, url, der, "the full list", 4, bench.pick(8, 40))
        shard = f"{url[:-4]}/40.crl"
        download(bench, stack, shard, requests.get(shard, timeout=10).content, "a shard", 8, bench.pick(50, 4000))
        conditional(bench, stack, url)
        # As it is configured by default.
        for name in config:
            del stack.settings[name]
        stack.write_config()
        stack.restart()
        wait_until(lambda: settled(stack), "all lists", NEVER, 0.1)
        seen(bench, stack, few)
        if bench.quick:
            return
        stack.settings.update(config)
        stack.write_config()
        grown(bench, stack, few, many)
        full_list(bench, stack, many)
