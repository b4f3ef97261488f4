"""The section "crl": lists with a million entries, and how soon one more revocation is seen."""
import hashlib
import subprocess
import threading
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


def published(stack):
    """What the server said of the full lists that it made alone: entries, number, made_ms, published_ms."""
    return [event for event in stack.events() if event["event"] == "crl_published" and event["scope"] == -1]


def rebuild(stack):
    """One full list, from the start of its making to its publication, as the server says."""
    before = len(published(stack))
    with stack.db() as connection:
        connection.cursor().execute("UPDATE jitrca.crl_scope SET next_update = now() WHERE scope = -1")
    wait_until(lambda: len(published(stack)) > before, "a full list", NEVER)
    return published(stack)[-1]["published_ms"] / 1000


def full_list(bench, stack, count):
    """Time and memory of the full list with count entries; its octets, as they are served."""
    pids = stack.pids()
    with client.admin(stack) as boss:
        url = f"{stack.http_url}/crl/{boss.issue(f'warm-{count}').json()['ca']}.crl"
    rebuild(stack)
    der = requests.get(url, timeout=60).content

    def once():
        with Meter(stack) as limit_meter:
            limit = read_and_hash(stack, len(der))
        with Peak(pids["frontend"], pids["signer"]) as peak, Meter(stack) as meter:
            took = rebuild(stack)
        return {"seconds": took, **limit, "ratio": took / (limit["copy_s"] + limit["hash_s"]), "peak_growth_mib": peak.mib,
                "server_cpu_s": meter.server_s, "postgresql_cpu_s": meter.postgresql_s,
                "limit_postgresql_cpu_s": limit_meter.postgresql_s}
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


def seen(bench, stack, already, beside=""):
    """From the request to revoke to its effect, as a relying party sees it."""
    count = bench.pick(3, 40)
    took = {}
    bench.say(f"revoking with {already} revoked{beside}")
    with client.admin(stack) as boss:
        for i in range(count):
            body = boss.issue(f"seen-{i}{beside.replace(' ', '-')}").json()
            party = Party(stack, body)
            targets = {"shard": lambda p=party: p.lists(p.shard), "delta": lambda p=party: p.lists(p.delta),
                       "OCSP answer": lambda p=party: p.ocsp_status() == "REVOKED"}
            start = time.monotonic()
            answer = boss.post(f"/v1/certificates/{body['certificate_id']}/revoke", json={"reason": "superseded"})
            assert answer.status_code == 200, answer.text
            for name, seconds in watch(start, targets).items():
                took.setdefault(name, []).append(20 if seconds is None else seconds)
    for name, seconds in took.items():
        figures = quantiles(seconds)
        bench.figure(f"revoke to {name}{beside}", figures)
        bench.must(f"from revoke to {name} served, {already} revoked{beside}: p99", figures["p99_ms"] / 1000, at_most=1,
                   unit=" s")


def seen_beside_full_lists(bench, stack, already):
    """The same while one full list after the other is being made."""
    ended = threading.Event()
    made = []

    def make():
        while not ended.is_set():
            made.append(rebuild(stack))
    thread = threading.Thread(target=make)
    thread.start()
    try:
        seen(bench, stack, already, " beside full lists")
    finally:
        ended.set()
        thread.join()
    bench.figure("full lists made beside revocations", {"lists": len(made), "seconds": sum(made)})


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
    # A list of any length is made alone, as a large one is.
    config = {"crl_debounce": "1ms", "crl_full_immediate_max": "1KiB"}
    with bench.stack(config=config) as stack:
        grown(bench, stack, 0, few)
        url, der = full_list(bench, stack, few)
        shards(bench, stack, url)
        download(bench, stack, url, der, "the full list", 4, bench.pick(8, 40))
        shard = f"{url[:-4]}/40.crl"
        download(bench, stack, shard, requests.get(shard, timeout=10).content, "a shard", 8, bench.pick(50, 4000))
        conditional(bench, stack, url)
        # As it is configured by default; but a moment's list would be small.
        del stack.settings["crl_debounce"]
        if not bench.quick:
            del stack.settings["crl_full_immediate_max"]
        stack.write_config()
        stack.restart()
        wait_until(lambda: settled(stack), "all lists", NEVER, 0.1)
        seen(bench, stack, few)
        seen_beside_full_lists(bench, stack, few)
        if bench.quick:
            return
        stack.settings.update(config)
        stack.write_config()
        grown(bench, stack, few, many)
        full_list(bench, stack, many)
