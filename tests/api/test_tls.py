"""The edge of the listeners: what somebody unknown may do how often, renegotiation, requests in a heap, the signer's
environment."""
import json
import os
import pathlib
import socket
import ssl
import subprocess

import pytest

from harness import client
from harness.client import key_pem, new_key
from harness.stack import Stack


def secure(stack, source="127.0.0.1", port=None):
    plain = socket.create_connection(("127.0.0.1", port or stack.ports["https"]), 10, (source, 0))
    return ssl.create_default_context(cafile=stack.ca_bundle).wrap_socket(plain, server_hostname="localhost")


def confirm(stack, source, host="iot.us-east-1.amazonaws.com"):
    """(status, headers, problem) of a confirmation that names an account which is not ours."""
    body = json.dumps({"arn": "arn:aws:iot:us-east-1:999999999999:ruledestination/http/x", "confirmationToken": "t",
                       "enableUrl": f"https://{host}/confirmdestination/t"})
    with secure(stack, source) as tls:
        tls.sendall(f"POST /v1/iot/jitr-events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                    f"x-amz-rules-engine-message-type: DestinationConfirmation\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                    .encode())
        answer = b""
        while piece := tls.recv(65536):
            answer += piece
    head, _, rest = answer.decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:]), json.loads(rest)


def test_somebody_unknown_confirms_only_so_often(stack):
    answers = [confirm(stack, "127.0.7.1") for _ in range(13)]
    statuses = [status for status, _, _ in answers]
    # Ten at once, and one more for each two seconds that the rest took.
    assert statuses[:10] == [403] * 10 and statuses[-1] == 429, statuses
    _, headers, problem = answers[-1]
    assert problem["code"] == "rate_limited" and 1 <= int(headers["Retry-After"]) <= 2
    assert confirm(stack, "127.0.7.2")[0] == 403, "another address is not concerned"


def test_renegotiation_is_refused(stack):
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{stack.ports['https']}", "-servername", "localhost", "-tls1_2",
               "-CAfile", stack.ca_bundle]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as asker:
        asker.stdin.write(b"R\n")
        asker.stdin.flush()
        asker.wait(30)  # its standard input stays open: it ends because the server hangs up
        said = asker.stdout.read()
    assert b"RENEGOTIATING" in said and b"DONE" not in said, said[-2000:]
    assert said.count(b"depth=0") == 1, "a second handshake"
    with client.admin(stack) as boss:
        assert boss.get("/v1/cas").status_code == 200


@pytest.mark.parametrize("where", ["https", "http"])
def test_a_heap_of_requests_is_answered_one_by_one(stack, where):
    """Pipelining (RFC 9112 9.3.2): each is answered, in order, and memory does not grow with them."""
    count = 300
    with (secure(stack) if where == "https" else socket.create_connection(("127.0.0.1", stack.ports["http"]), 10)) as link:
        link.settimeout(30)
        heap = b"".join(b"GET /nowhere/%d HTTP/1.1\r\nHost: x\r\n%s\r\n" % (i, b"Connection: close\r\n" if i == count - 1 else b"")
                        for i in range(count))
        link.sendall(heap)
        answer = b""
        while piece := link.recv(65536):
            answer += piece
    assert answer.count(b"HTTP/1.1 404 ") == count


def test_the_signer_is_told_nothing_of_aws_and_the_database(cluster):
    if os.getuid() != 0:
        pytest.skip("another's environment is for root to read")  # of another user, as the signer is
    secrets = {"AWS_SECRET_ACCESS_KEY": "canary-aws-secret", "AWS_PROFILE": "canary-profile", "PGAPPNAME": "canary-pg"}
    with Stack(cluster, env=secrets) as own:
        pids = own.pids()
        told = {role: pathlib.Path(f"/proc/{pid}/environ").read_bytes() for role, pid in pids.items()}
        assert b"canary" not in told["signer"]
        assert b"AWS_SECRET_ACCESS_KEY=canary-aws-secret" in told["frontend"]


def test_a_foreign_certificate_is_refused_and_the_next_is_not(stack, tmp_path):
    """A key pair of our own making with our names in it: known by neither row nor signature."""
    key = new_key()
    with client.admin(stack) as boss:
        body = boss.issue("tls-own", key).json()
    (tmp_path / "own.pem").write_text(body["certificate"])
    (tmp_path / "key.pem").write_text(key_pem(key))
    subprocess.run(["openssl", "x509", "-in", tmp_path / "own.pem", "-signkey", tmp_path / "key.pem", "-out",
                    tmp_path / "forged.pem"], check=True, capture_output=True, timeout=30)
    forged = {"certificate": (tmp_path / "forged.pem").read_text(), "chain": ""}
    for _ in range(2):
        with client.device(stack, key, forged) as device:
            answer = device.get("/v1/rotation")
            assert answer.status_code == 401 and client.code(answer) == "certificate_foreign"
        with client.device(stack, key, body) as device:
            assert device.get("/v1/rotation").status_code == 200
