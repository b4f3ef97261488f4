#!/usr/bin/python3
"""Plays the clients of server/http: http_live.py PROGRAM, where `PROGRAM serve DIR key=value …` is the server."""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import resource
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import traceback

PROGRAM = os.path.abspath(sys.argv[1])
# Sanitizers and a busy machine stretch time; nothing here measures how fast, only whether and before what.
PATIENCE = 20


class Server:
    def __init__(self, directory, limits):
        self.directory = directory
        self.process = subprocess.Popen([PROGRAM, "serve", str(directory), *(f"{k}={v}" for k, v in limits.items())],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env={**os.environ, "HTTP_TEST_LOG": "1"})
        self.https, self.stations, self.http = map(int, self.process.stdout.readline().split())
        # The log is drained, or the server would block on it.
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        self.log = self.pool.submit(self.process.stderr.read)

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        text = self.log.result(PATIENCE)
        assert code == 0, f"exit {code}\n{text}"
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def metric(self, name):
        text = http(self, "GET", "/metrics").body.decode()
        return int(re.search("^" + re.escape(name) + r" (\d+)$", text, re.M).group(1))


@contextlib.contextmanager
def serving(directory, **limits):
    server = Server(directory, limits)
    try:
        yield server
        if server.process.poll() is None:
            server.stop()
        assert server.process.returncode == 0, f"exit {server.process.returncode}"
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def header(self, name):
        return next((v for k, v in self.headers if k.lower() == name.lower()), None)

    def problem(self, status, code):
        assert self.status == status, (self.status, self.body)
        assert self.header("Content-Type") == "application/problem+json", self.headers
        body = json.loads(self.body)
        assert body["code"] == code and body["status"] == status, body
        assert body["type"] == "urn:jitrca:problem:" + code and body["title"], body
        assert body["request_id"] == self.header("X-Request-Id"), body
        return body


def read_answer(sock, head=False, data=b""):
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            raise EOFError(data)
        data += piece
    top, _, rest = data.partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    status = int(lines[0].split()[1])
    headers = [tuple(line.split(": ", 1)) for line in lines[1:]]
    answer = Answer(status, headers, b"")
    if status == 100:
        return read_answer(sock, head, rest)
    length = int(answer.header("Content-Length") or 0)
    while not head and status != 304 and len(rest) < length:
        piece = sock.recv(65536)
        if not piece:
            raise EOFError(rest)
        rest += piece
    answer.body = rest
    return answer


def connect(port, source=None):
    return socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0) if source else None)


def tls(sock, server, name=None, certificate=None, low=None, high=None, ca="one.pem"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = name is not None
    context.load_verify_locations(server.directory / ca)
    if name is None:
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(server.directory / f"{certificate}.pem", server.directory / f"{certificate}.key")
    if low:
        context.minimum_version = low
    if high:
        context.maximum_version = high
    return context.wrap_socket(sock, server_hostname=name)


def raw(server, octets, port=None):
    with connect(port or server.http) as sock:
        sock.sendall(octets)
        return read_answer(sock, octets.startswith(b"HEAD"))


def message(method, path, body=b"", **headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: test"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def http(server, method, path, body=b"", port=None, **headers):
    return raw(server, message(method, path, body, **headers), port)


def ends(sock, within):
    """True if the peer ends the connection in time."""
    sock.settimeout(within)
    try:
        while sock.recv(65536):
            pass
        return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


# ---- routing, headers, bodies -------------------------------------------------------------------------------


def test_answers_carry_id_no_store_and_no_server(directory):
    with serving(directory) as server:
        answer = http(server, "GET", "/ping")
        assert answer.status == 200 and answer.body == b"pong\n"
        assert re.fullmatch("[0-9a-f]{32}", answer.header("X-Request-Id"))
        assert answer.header("Cache-Control") == "no-store" and answer.header("Server") is None
        assert http(server, "GET", "/show/a").header("Cache-Control") == "max-age=60"
        assert http(server, "GET", "/file").body == b"from a file\n"
        unchanged = http(server, "GET", "/unchanged")
        assert unchanged.status == 304 and unchanged.body == b""
        head = http(server, "HEAD", "/ping")
        assert head.status == 200 and head.header("Content-Length") == "5" and head.body == b""
        with connect(server.http) as sock:
            ids = set()
            for path in ("/ping", "/park", "/defer", "/nix", "/file", "/ping"):
                sock.sendall(message("GET", path))
                ids.add(read_answer(sock).header("X-Request-Id"))
            assert len(ids) == 6, "keep-alive: one connection for all"
            sock.sendall(message("GET", "/ping") + message("GET", "/park"))  # pipelined
            first = sock.recv(65536)
            while first.count(b"HTTP/1.1 200") < 2 or not first.endswith(b"later\n"):
                first += sock.recv(65536)


def test_paths_and_queries_are_exact(directory):
    with serving(directory) as server:
        show = json.loads(http(server, "GET", "/show/a%20b%C3%A9?q=x%26y+z").body)
        assert show["id"] == "a bé" and show["q"] == "x&y z", show
        assert json.loads(http(server, "GET", "http://test/show/abs?q=1").body)["id"] == "abs"
        cases = [("GET", "/nix", 404, "not_found"), ("GET", "/show/", 404, "not_found"),
                 ("GET", "/show/a/b", 404, "not_found"), ("GET", "//ping", 404, "not_found"),
                 ("GET", "/secret", 404, "not_found"),  # of the TLS listeners
                 ("POST", "/ping", 405, "method_not_allowed"), ("OPTIONS", "/park", 405, "method_not_allowed"),
                 ("get", "/ping", 405, "method_not_allowed"), ("TRACE", "/ping", 405, "method_not_allowed"),
                 ("GET", "/show/%", 400, "path_malformed"), ("GET", "/show/%4", 400, "path_malformed"),
                 ("GET", "/show/%zz", 400, "path_malformed"), ("GET", "/show/a%00b", 400, "path_malformed"),
                 ("GET", "/show/%0a", 400, "path_malformed"), ("GET", "/show/%ff", 400, "path_malformed"),
                 ("GET", "/show/%c0%af", 400, "path_malformed"), ("GET", "*", 400, "path_malformed"),
                 ("GET", "/show/a?q=%", 400, "query_malformed"), ("GET", "/show/a?q=%00", 400, "query_malformed"),
                 ("GET", "/show/a?q=%fe", 400, "query_malformed"), ("GET", "/show/a?x=1", 400, "query_unknown"),
                 ("GET", "/ping?q=1", 400, "query_unknown"), ("GET", "/show/a?q=1&q=2", 400, "query_repeated"),
                 ("GET", "/show/" + "a" * 2100, 414, "uri_too_long"), ("GET", "/fail", 500, "internal"),
                 ("GET", "/silent", 500, "internal"), ("GET", "/busy", 503, "database_unavailable")]
        for method, path, status, code in cases:
            answer = http(server, method, path)
            problem = answer.problem(status, code)
            if status == 405:
                assert answer.header("Allow") == {"/ping": "GET, HEAD", "/park": "GET, HEAD, POST"}[path], answer.headers
            if status == 500:
                assert b"canary" not in answer.body and "detail" not in problem
            if status == 503:
                assert answer.header("Retry-After") == "7" and answer.header("ETag") is None
        lines = server.stop()
        assert any(line.get("code") == "canary_code" for line in lines if line["event"] == "request_failed")
        requests = [line for line in lines if line["event"] == "request"]
        assert len(requests) == len(cases) + 2, len(requests)
        assert not any("q=" in json.dumps(line) for line in requests), "a query is in the log"
        assert {"method", "path", "route", "status", "code", "duration_us", "actor", "peer", "listener"} <= set(requests[0])


def test_headers_are_bounded_and_unambiguous(directory):
    with serving(directory) as server:
        get = b"GET /ping HTTP/1.1\r\nHost: t\r\n"
        post = b"POST /echo HTTP/1.1\r\nHost: t\r\n"
        cases = [
            (get + b"X: " + b"a" * 5500 + b"\r\n\r\n", 431, "header_too_large"),
            (get + b"".join(b"X%d: a\r\n" % i for i in range(70)) + b"\r\n", 431, "header_too_large"),
            (b"GET /ping HTTP/1.1\r\n\r\n", 400, "host_missing"),
            (get + b"Host: u\r\n\r\n", 400, "header_repeated"),
            (get + b"Authorization: a\r\nauthorization: b\r\n\r\n", 400, "header_repeated"),
            (get + b"Idempotency-Key: a\r\nIdempotency-Key: a\r\n\r\n", 400, "header_repeated"),
            (post + b"Content-Type: a/b\r\nContent-Type: a/b\r\nContent-Length: 1\r\n\r\nx", 400, "header_repeated"),
            (post + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400, "header_repeated"),
            (post + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy", 400, "header_repeated"),
            (post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "length_ambiguous"),
            (post + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, "transfer_encoding_unsupported"),
            (post + b"Transfer-Encoding: identity\r\n\r\n", 400, "transfer_encoding_unsupported"),
            (post.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n", 400,
             "transfer_encoding_unsupported"),
            (post + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "header_repeated"),
            (post + b"Content-Length : 5\r\n\r\nhello", 400, "header_malformed"),
            (get + b"X: a\x01b\r\n\r\n", 400, "header_malformed"),
        ]
        for octets, status, code in cases:
            with connect(server.http) as sock:
                # What follows a message that two parties may frame differently is never read as a request.
                sock.sendall(octets + message("GET", "/big"))
                read_answer(sock).problem(status, code)
                assert ends(sock, PATIENCE), code
        # These libmicrohttpd answers by itself, and closes.
        for octets, status in ((post + b"Content-Length: x\r\n\r\n", 400), (post + b"Content-Length: -1\r\n\r\n", 400),
                               (get + b"X: " + b"a" * 40000 + b"\r\n\r\n", 431)):
            with connect(server.http) as sock:
                sock.sendall(octets)
                assert read_answer(sock).status == status


def test_bodies_are_bounded(directory):
    with serving(directory) as server:
        with connect(server.http) as sock:
            sock.sendall(message("POST", "/echo", b"\x1f\x8b", Content_Encoding="gzip"))
            read_answer(sock).problem(415, "unsupported_media_type")
            # White space behind a value is none of it (RFC 9110 5.5).
            sock.sendall(message("POST", "/echo", b"x", Content_Encoding="Identity \t"))
            assert read_answer(sock).body == b"x"
            for body in (b"x", b"y" * 200000):
                sock.sendall(message("POST", "/echo", body))
                assert read_answer(sock).body == body
            # A small refused body is read, and the connection lives.
            sock.sendall(message("POST", "/nix", b"z" * 60000))
            read_answer(sock).problem(404, "not_found")
            sock.sendall(message("GET", "/ping", b"a"))
            read_answer(sock).problem(413, "body_too_large")
            chunked = b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
            sock.sendall(chunked + b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n")
            assert read_answer(sock).body == b"hello world"
            # Too long by counting.
            sock.sendall(chunked + (b"8000\r\n" + b"a" * 0x8000 + b"\r\n") * 7 + b"0\r\n\r\n")
            read_answer(sock).problem(413, "body_too_large")
        with connect(server.http) as sock:
            sock.sendall(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 900000000\r\n\r\nabc")
            read_answer(sock).problem(413, "body_too_large")
            assert ends(sock, PATIENCE)
        with connect(server.http) as sock:  # without end
            sock.sendall(chunked)
            try:
                for _ in range(1000):
                    sock.sendall(b"8000\r\n" + b"a" * 0x8000 + b"\r\n")
                raise AssertionError("32 MiB of a body of 200 kB were taken")
            except ConnectionError:
                pass
        with connect(server.http) as sock:
            sock.sendall(b"POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 100")
            sock.sendall(b"abc")
            assert read_answer(sock).body == b"abc"
            sock.sendall(b"POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 300000\r\n\r\n")
            read_answer(sock).problem(413, "body_too_large")


def test_json_is_strict(directory):
    with serving(directory) as server:
        good = http(server, "POST", "/json", b'{"a":[1,2,{"b":"\xc3\xa9"}]}', Content_Type="Application/JSON; charset=utf-8")
        assert good.status == 201 and json.loads(good.body) == {"a": [1, 2, {"b": "é"}]}
        http(server, "POST", "/json", b"{}", Content_Type="text/plain").problem(415, "unsupported_media_type")
        http(server, "POST", "/json", b"{}").problem(415, "unsupported_media_type")
        http(server, "POST", "/json", Content_Type="application/json").problem(400, "body_missing")
        for body, code in ((b'{"a":1,"a":2}', "json_duplicate_key"), (b'{"x":{"a":1,"a":1}}', "json_duplicate_key"),
                           (b"[1]", "json_not_object"), (b'"a"', "json_not_object"), (b"{} x", "json_malformed"),
                           (b"{}{}", "json_malformed"), (b'{"a":}', "json_malformed"), (b"{'a':1}", "json_malformed"),
                           (b'{"a":"\\u0000"}', "json_malformed"), (b'{"a\\u0000":1}', "json_malformed"),
                           (b'{"a":"\xff"}', "json_not_utf8"), (b'{"a":"\xed\xa0\x80"}', "json_not_utf8"),
                           (b"[" * 100000, "json_too_deep"), (b'{"a":' * 17 + b"1" + b"}" * 17, "json_too_deep"),
                           (b"\xef\xbb\xbf{}", "json_malformed"), (b'{"a":1e999}', "json_malformed"),
                           (b'{"a":123456789012345678901}', "json_malformed"), (b'{"a":"\\ud800"}', "json_malformed"),
                           (b'{"a":[' + b"0," * 70000 + b"0]}", "json_too_many_values"), (b" ", "json_malformed"),
                           (b'{"a":1,}', "json_malformed"), (b'{"a":NaN}', "json_malformed"), (b"nul", "json_malformed")):
            http(server, "POST", "/json", body, Content_Type="application/json").problem(400, code)
        deep = b'{"a":' * 16 + b"1" + b"}" * 16
        assert http(server, "POST", "/json", deep, Content_Type="application/json").status == 201


def test_upload_is_authorized_first_and_spooled(directory):
    with serving(directory) as server:
        def over_tls(octets, more=()):
            with tls(connect(server.stations), server) as sock:
                sock.sendall(octets)
                for piece in more:
                    sock.sendall(piece)
                return read_answer(sock)
        size = 3 << 20
        head = f"POST /upload HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\nAuthorization: Bearer "
        # Refused although the body never came: it would be more than is read of a refused one.
        answer = over_tls((head.replace(str(size), str(7 << 20)) + "bad\r\n\r\n").encode())
        answer.problem(401, "credentials_missing")
        # Less than that is read first, for many clients look for an answer only when all is sent.
        answer = over_tls((head + "bad\r\n\r\n").encode(), [b"x" * 65536] * (size // 65536))
        answer.problem(401, "credentials_missing")
        assert answer.header("WWW-Authenticate").startswith("Bearer ")
        answer = over_tls((head + "good\r\n\r\n").encode(), [b"x" * 65536] * (size // 65536))
        assert answer.status == 200 and json.loads(answer.body) == {"size": size}
        over_tls((head.replace(str(size), str(9 << 20)) + "good\r\n\r\n").encode()).problem(413, "body_too_large")
        over_tls(message("GET", "/secret")).problem(401, "credentials_missing")
        lines = server.stop()
        assert [line for line in lines if line.get("actor") == "tester" and line["status"] == 200]


# ---- TLS ------------------------------------------------------------------------------------------------------


def test_client_certificate_is_optional_and_delivered(directory):
    with serving(directory) as server:
        for low, high in ((ssl.TLSVersion.TLSv1_3, None), (None, ssl.TLSVersion.TLSv1_2)):
            for certificate in (None, "client"):
                with tls(connect(server.https), server, certificate=certificate, low=low, high=high) as sock:
                    for _ in range(3):
                        sock.sendall(message("GET", "/show/a"))
                        shown = json.loads(read_answer(sock).body)["peer_bytes"]
                        if certificate:
                            wanted = len(ssl.PEM_cert_to_DER_cert((directory / "client.pem").read_text(encoding="ascii")))
                            assert shown == wanted
                        else:
                            assert shown == 0
        old = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{server.https}", "-tls1_1", "-cipher",
                              "ALL:@SECLEVEL=0"], input=b"", capture_output=True, check=False, timeout=PATIENCE)
        assert old.returncode != 0, "TLS 1.1 was accepted"
        weak = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{server.https}", "-tls1_2", "-cipher",
                               "ECDHE-ECDSA-AES128-SHA:AES128-GCM-SHA256:@SECLEVEL=0"], input=b"", capture_output=True,
                              check=False, timeout=PATIENCE)
        assert weak.returncode != 0, "CBC or RSA key exchange was accepted"


def test_certificates_follow_the_name_and_swap(directory):
    with serving(directory) as server:
        def shown(name):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(connect(server.stations), server_hostname=name) as sock:
                der = sock.getpeercert(True)
            names = ["one", "two", "next"]
            ders = [ssl.PEM_cert_to_DER_cert((directory / f"{n}.pem").read_text(encoding="ascii")) for n in names]
            return names[ders.index(der)]
        assert [shown(n) for n in ("one.example", "two.example", "else.example", None)] == ["one", "two", "one", "one"]
        old = tls(connect(server.stations), server)
        old.sendall(message("GET", "/ping"))
        assert read_answer(old).status == 200
        with tls(connect(server.stations), server) as sock:
            sock.sendall(message("POST", "/swap"))
            assert read_answer(sock).status == 204
        assert shown("one.example") == "next" and shown("two.example") == "next"
        old.sendall(message("GET", "/ping"))  # lives on under the old ones
        assert read_answer(old).status == 200
        old.close()


# ---- those who stall ------------------------------------------------------------------------------------------


def client_hello():
    """The octets of a whole ClientHello, out of OpenSSL's memory BIOs."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


def test_stalled_connections_end_in_time_and_cost_nothing(directory):
    with serving(directory, first_ms=2000, idle_ms=2000) as server:
        hello = client_hello()
        stalled = []
        for octets in (b"", hello[:3], hello[:100], hello, b"\x15\x03\x01", b"GET /ping"):
            for _ in range(20):
                sock = connect(server.https)
                sock.sendall(octets)
                stalled.append(sock)
        for octets in (b"", b"GET", b"GET /ping HTTP/1.1\r\nHost:", message("POST", "/echo", b"abc")[:-1]):
            for _ in range(20):
                sock = connect(server.http)
                sock.sendall(octets)
                stalled.append(sock)
        for octets in (b"", b"GET /ping HTTP/1.1\r\nHost:"):
            sock = tls(connect(server.https), server)
            sock.sendall(octets)
            stalled.append(sock)
        time.sleep(0.5)  # what they cost is measured over a time in which nothing happens
        before = server.cpu_s()
        time.sleep(1)
        assert server.cpu_s() - before < 0.1, "stalled connections cost CPU"
        assert all(ends(sock, PATIENCE) for sock in stalled)
        assert server.metric('jitrca_http_cut_total{listener="https",reason="timeout"}') >= 80
        assert server.metric('jitrca_http_cut_total{listener="http",reason="timeout"}') == 80


def test_slow_drips_and_deaf_clients_are_cut(directory):
    with serving(directory, first_ms=1500, idle_ms=1500, shutdown_ms=200) as server:
        dripping = []
        for octets in (b"GET /ping HTTP/1.1\r\nX: ", message("POST", "/echo", b"a" * 10000)[:-9999]):
            sock = connect(server.http)
            sock.sendall(octets)
            dripping.append(sock)
        sock = connect(server.http)  # the same behind an answered request
        sock.sendall(message("GET", "/ping"))
        read_answer(sock)
        sock.sendall(message("POST", "/echo", b"a" * 10000)[:-9999])
        dripping.append(sock)
        deadline = time.monotonic() + PATIENCE
        alive = set(dripping)
        while alive and time.monotonic() < deadline:
            for sock in list(alive):
                try:
                    sock.sendall(b"a")
                    if select.select([sock], [], [], 0)[0] and not sock.recv(65536):
                        alive.discard(sock)
                except ConnectionError:
                    alive.discard(sock)
            time.sleep(0.1)
        assert not alive, "a slow drip was never cut"
        deaf = connect(server.http)
        deaf.sendall(message("GET", "/big"))
        # 32 MiB at the least rate would be an hour; here its connection must make room when others come.
        idle = connect(server.http)
        idle.sendall(message("GET", "/ping"))
        read_answer(idle)
        assert ends(idle, PATIENCE), "an idle connection was never cut"
        deaf.close()


def test_deaf_client_makes_room(directory):
    with serving(directory, connections=4, address=4, shutdown_ms=200) as server:
        deaf = [connect(server.http) for _ in range(4)]
        for sock in deaf:
            sock.sendall(message("GET", "/big"))
        # Whoever read nothing for two seconds makes room, on a busy machine somewhat later.
        time.sleep(2.5)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with connect(server.http, "127.0.0.9") as sock:
                    sock.sendall(message("GET", "/ping"))
                    assert read_answer(sock).status == 200
                    break
            except ConnectionError:
                assert time.monotonic() < deadline, "deaf clients keep their places"
                time.sleep(0.1)  # who is refused is told nothing of when there is room


def test_limits_of_connections(directory):
    with serving(directory, connections=40, address=10) as server:
        mine = [connect(server.http) for _ in range(10)]
        assert ends(connect(server.http), PATIENCE), "an eleventh from one address was taken"
        with connect(server.http, "127.0.0.2") as sock:
            sock.sendall(message("GET", "/ping"))
            assert read_answer(sock).status == 200
        for sock in mine:
            sock.close()
        # The listener is full of stalled ones: the oldest makes room, whoever speaks is served.
        stalled = [connect(server.http, f"127.0.1.{i % 20 + 1}") for i in range(60)]
        for i in range(20):
            with connect(server.http, f"127.0.2.{i + 1}") as sock:
                sock.sendall(message("GET", "/park"))
                assert read_answer(sock).status == 200
        assert server.metric('jitrca_http_cut_total{listener="http",reason="evicted"}') >= 20
        for sock in stalled:
            sock.close()


def test_two_thousand_stalled_do_not_lock_out_a_station(directory):
    """The short form: every kind of stalling at once, twice the limit, and a station that is served all the while."""
    with serving(directory, connections=400, address=50) as server:
        hello = client_hello()
        # A connection that has been used by somebody known is the last to go.
        station = tls(connect(server.stations), server)
        station.sendall(message("GET", "/secret", Authorization="Bearer good"))
        read_answer(station)
        stalled = []
        for i in range(800):
            sock = connect(server.stations, f"127.0.{3 + i // 200}.{i % 200 + 1}")
            sock.sendall((b"", hello[:100], hello)[i % 3])
            stalled.append(sock)
            if i % 20 == 0:
                station.sendall(message("GET", "/ping"))
                assert read_answer(station).status == 200
                with tls(connect(server.stations), server) as fresh:
                    fresh.sendall(message("GET", "/park"))
                    assert read_answer(fresh).status == 200
        before = server.cpu_s()
        time.sleep(1)
        assert server.cpu_s() - before < 0.1, "stalled connections cost CPU"
        for sock in stalled:
            sock.close()


# ---- many at once, and the end ----------------------------------------------------------------------------------


def test_many_clients_park_and_finish(directory):
    with serving(directory) as server:
        def client(number):
            with connect(server.http) as sock:
                for i in range(30):
                    path = ("/park", "/defer", "/ping", "/show/a")[(number + i) % 4]
                    sock.sendall(message("GET", path))
                    assert read_answer(sock).status == 200
                sock.sendall(message("GET", "/park"))  # and goes away before the answer
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            list(pool.map(client, range(64)))
        deadline = time.monotonic() + PATIENCE
        while server.metric("jitrca_http_in_flight") > 1:  # its own
            assert time.monotonic() < deadline, "requests are left over"
        assert server.metric("jitrca_http_body_bytes") == 0


def test_exactly_128_at_once_are_all_answered(directory):
    """libmicrohttpd 0.9.75 hangs when one epoll thread gets 128 events at once."""
    with serving(directory) as server:
        socks = [connect(server.http) for _ in range(256)]
        for count in (127, 128, 129, 256):
            for sock in socks[:count]:
                sock.sendall(message("GET", "/ping"))
            for sock in socks[:count]:
                assert read_answer(sock).status == 200
        for sock in socks:
            sock.close()


def test_stop_finishes_what_is_in_flight(directory):
    with serving(directory, workers=8) as server:
        idle = connect(server.http)
        idle.sendall(message("GET", "/ping"))
        read_answer(idle)
        silent = connect(server.https)
        busy = [connect(server.http) for _ in range(6)]
        for sock in busy:
            sock.sendall(message("GET", "/slow"))
        deadline = time.monotonic() + PATIENCE
        while server.metric("jitrca_http_in_flight") < 7:  # with its own
            assert time.monotonic() < deadline
        server.process.send_signal(signal.SIGTERM)
        assert ends(idle, PATIENCE) and ends(silent, PATIENCE)
        for sock in busy:
            answer = read_answer(sock)
            assert answer.status == 200 and answer.body == b"slow\n" and answer.header("Connection") == "close"
            assert ends(sock, PATIENCE)
        server.stop()


def make_certificates(directory):
    for name in ("one", "two", "next", "client"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", str(directory / f"{name}.key"), "-out", str(directory / f"{name}.pem"), "-subj",
                        f"/CN={name}.example", "-addext", f"subjectAltName=DNS:{name}.example", "-days", "30"],
                       check=True, capture_output=True)


# These mostly wait for time to pass, each on a server of its own: together they take as long as the longest.
WAITING = (test_stalled_connections_end_in_time_and_cost_nothing, test_slow_drips_and_deaf_clients_are_cut,
           test_deaf_client_makes_room, test_two_thousand_stalled_do_not_lock_out_a_station)


def passes(test, directory):
    begun = time.monotonic()
    try:
        test(directory)
    except Exception:  # the next ones still say something
        print(f"    FAIL  {test.__name__}\n{traceback.format_exc()}", flush=True)
        return False
    print(f"    ok    {test.__name__} ({time.monotonic() - begun:.1f} s)", flush=True)
    return True


def main():
    wanted = sys.argv[2:]
    tests = [test for name, test in globals().items()
             if name.startswith("test_") and (not wanted or any(w in name for w in wanted))]
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="http_live."))
    try:
        make_certificates(directory)
        results = [passes(test, directory) for test in tests if test not in WAITING]
        with concurrent.futures.ThreadPoolExecutor(len(WAITING)) as pool:
            results += pool.map(passes, [test for test in tests if test in WAITING],
                                [directory] * len(WAITING))
    finally:
        shutil.rmtree(directory)
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
