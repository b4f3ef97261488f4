"""The section "ocsp": answers from the cache beside a bare libmicrohttpd, and answers signed on demand."""
import base64
import os
import urllib.parse

import requests

from harness import client
from harness.stack import wait_until
from revoked import Party, ocsp_request

from measure import Meter, bare_server, cpu_s, load

CONNECTIONS = 32
TYPE = "application/ocsp-request"
HEADERS = {"Content-Type": TYPE}


def beside_bare(bench, stack, what, size, count, mode, **options):
    """Ours and a bare reply of that size, in turn."""
    with bare_server("memory", size) as (address, process):
        def once():
            with Meter(stack) as meter:
                own = load(mode, connect=f"127.0.0.1:{stack.ports['http']}", connections=CONNECTIONS, count=count, **options)
            before = cpu_s(process.pid)
            bare = load(mode, connect=address, connections=CONNECTIONS, count=count, **options)
            spent = cpu_s(process.pid) - before
            assert own["statuses"] == bare["statuses"] == {"200": count}, (own, bare)
            return {"per_s": own["per_s"], "bare_per_s": bare["per_s"], "ratio": own["per_s"] / bare["per_s"],
                    "server_us": meter.server_s / count * 1e6, "postgresql_us": meter.postgresql_s / count * 1e6,
                    "bare_us": spent / count * 1e6, "p99_ms": own["p99_ms"], "generator_us": own["cpu_us_per_request"],
                    **{f"{role}_us": value / count * 1e6 for role, value in meter.by.items()}}
        figures = bench.repeat(what, once)
    bench.figure(what, figures, f"{figures['per_s']['median']:.0f}/s, {figures['server_us']['median']:.1f} us CPU;"
                 f" bare {figures['bare_per_s']['median']:.0f}/s, {figures['bare_us']['median']:.1f} us")
    return figures


def bench_ocsp(bench):
    with bench.stack() as stack:
        with client.admin(stack) as boss:
            body = boss.issue("asked-about").json()
        url = f"{stack.http_url}/ocsp"
        if requests.post(url, data=ocsp_request(body), timeout=10, headers=HEADERS).status_code == 404:
            bench.skip("OCSP from cache over a bare reply", ">= 0.7", "/ocsp answers 404")
            bench.skip("OCSP signed on demand over a bare signature", "<= 2", "/ocsp answers 404")
            return
        party = Party(stack, body)
        wait_until(lambda: party.ocsp_status() == "GOOD", "an answer that says good", 20)
        measure_ocsp(bench, stack, body, url)


def measure_ocsp(bench, stack, body, url):
    request = ocsp_request(body)
    plain, with_nonce = bench.dir / "ocsp.req", bench.dir / "ocsp-nonce.req"
    plain.write_bytes(request)
    with_nonce.write_bytes(ocsp_request(body, nonce=os.urandom(32)))
    count = bench.pick(100, 40000)
    size = len(requests.post(url, data=request, timeout=10, headers=HEADERS).content)
    cached = beside_bare(bench, stack, "cached answers, POST", size, count, "post", path="/ocsp", body=plain,
                         content_type=TYPE)
    bench.must("OCSP from cache over a bare reply of its size, POST", cached["ratio"]["median"], at_least=0.7)
    path = "/ocsp/" + urllib.parse.quote(base64.b64encode(request).decode(), safe="")
    got = requests.get(f"{stack.http_url}{path}", timeout=10)
    if got.status_code == 200:
        by_get = beside_bare(bench, stack, "cached answers, GET", len(got.content), count, "get", path=path)
        bench.must("OCSP from cache over a bare reply of its size, GET", by_get["ratio"]["median"], at_least=0.7)
    else:
        bench.skip("OCSP from cache over a bare reply of its size, GET", ">= 0.7", f"GET answers {got.status_code}")
    size = len(requests.post(url, data=with_nonce.read_bytes(), timeout=10, headers=HEADERS).content)
    fresh = beside_bare(bench, stack, "signed on demand (a nonce)", size, bench.pick(50, 10000), "post", path="/ocsp",
                        body=with_nonce, content_type=TYPE)
    # What is done beyond answering at all: reading, looking up, and the signer's round trip with the signature.
    beyond = fresh["server_us"]["median"] - fresh["bare_us"]["median"]
    bench.must("OCSP signed on demand: CPU beyond a bare reply, over a bare signature",
               beyond / bench.limits["p256_sign_us"], at_most=2)
