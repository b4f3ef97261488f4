"""Who may call: Signature Version 4, as botocore and the CLI sign, and everything that is a little wrong."""
import datetime
import hashlib
import itertools
import json
import random

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
import requests

from harness.iotcore import KEY, READER, READER_SECRET, REGION, SECRET, LocalCore

NOW = datetime.datetime.utcnow


class Clock(datetime.datetime):
    """botocore's signer asks utcnow()."""
    offset = datetime.timedelta()

    @classmethod
    def utcnow(cls):
        return NOW() + cls.offset


def signed(core, method="GET", path="/endpoint", body=b"", headers=None, params=None, key=KEY, secret=SECRET,
           region=REGION, service="iot", offset_s=0, signer=botocore.auth.SigV4Auth, token=None, **options):
    request = botocore.awsrequest.AWSRequest(method=method, url=core.url + path, data=body, headers=dict(headers or {}),
                                             params=params)
    Clock.offset = datetime.timedelta(seconds=offset_s)
    before, botocore.auth.datetime.datetime = botocore.auth.datetime.datetime, Clock
    try:
        signer(botocore.credentials.Credentials(key, secret, token), service, region, **options).add_auth(request)
    finally:
        botocore.auth.datetime.datetime = before
    return request.prepare()


def send(prepared, **change):
    method, url = change.get("method", prepared.method), change.get("url", prepared.url)
    headers = {key: value.decode() if isinstance(value, bytes) else value for key, value in prepared.headers.items()}
    headers.update(change.get("headers", {}))
    headers = {key: value for key, value in headers.items() if value is not None}
    session = requests.Session()
    session.trust_env = False
    request = session.prepare_request(requests.Request(method, "http://localhost/", headers=headers,
                                                       data=change.get("body", prepared.body)))
    request.url = url  # as it was signed, not as requests would write it
    return session.send(request, timeout=20)


def code(answer):
    return answer.headers.get("x-amzn-ErrorType")


def test_both_services_and_both_forms_are_known(core):
    for service, signer in itertools.product(
            ("iot", "execute-api"), (botocore.auth.SigV4Auth, botocore.auth.SigV4QueryAuth)):
        answer = send(signed(core, service=service, signer=signer))
        assert answer.status_code == 200, (service, signer, answer.text)


def test_each_refusal_has_aws_name_for_it(core):
    cases = [
        (dict(key="AKIAUNKNOWN"), {}, "UnrecognizedClientException"),
        (dict(secret=SECRET + "x"), {}, "InvalidSignatureException"),
        (dict(secret=READER_SECRET), {}, "InvalidSignatureException"),
        (dict(region="us-east-1"), {}, "InvalidSignatureException"),
        (dict(service="iotdata"), {}, "InvalidSignatureException"),
        (dict(offset_s=-301), {}, "InvalidSignatureException"),
        (dict(offset_s=301), {}, "InvalidSignatureException"),
        ({}, dict(headers={"Authorization": None}), "MissingAuthenticationTokenException"),
        ({}, dict(headers={"Authorization": "Bearer abc"}), "IncompleteSignatureException"),
        ({}, dict(headers={"Authorization": "AWS4-HMAC-SHA256 Credential=a"}), "IncompleteSignatureException"),
        ({}, dict(headers={"Authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/20200101/{REGION}/iot, SignedHeaders=host, Signature=00"}),
         "IncompleteSignatureException"),
        ({}, dict(headers={"X-Amz-Date": None}), "IncompleteSignatureException"),
        ({}, dict(headers={"X-Amz-Date": "20261124T000000"}), "IncompleteSignatureException"),
        ({}, dict(headers={"X-Amz-Date": "2026112xT000000Z"}), "InvalidSignatureException"),
        ({}, dict(headers={"x-amzn-principal": "arn:x"}), "InvalidSignatureException"),
        ({}, dict(headers={"x-amz-content-sha256": "00"}), "InvalidSignatureException"),
        ({}, dict(method="DELETE"), "UnknownOperationException"),
        ({}, dict(body=b"{}"), "InvalidSignatureException"),
        ({}, dict(headers={"Host": "other.example"}), "InvalidSignatureException"),
        (dict(path="/policies"), dict(url="/policies?pageSize=1"), "InvalidSignatureException"),
    ]
    for options, change, want in cases:
        prepared = signed(core, **options)
        if "url" in change:
            change = {**change, "url": core.url + change["url"]}
        answer = send(prepared, **change)
        assert code(answer) == want, (options, change, answer.status_code, answer.text)
        assert answer.status_code == (404 if want == "UnknownOperationException" else 403)
        assert answer.json()["message"] and answer.headers["x-amzn-RequestId"]
        assert SECRET not in answer.text


def test_the_skew_is_five_minutes(core):
    for offset_s in (-290, 290):
        assert send(signed(core, offset_s=offset_s)).status_code == 200
    late = send(signed(core, offset_s=-400)).json()["message"]
    assert late.startswith("Signature expired: ") and late.endswith("- 5 min.)"), late
    early = send(signed(core, offset_s=400)).json()["message"]
    assert early.startswith("Signature not yet current: ") and early.endswith("+ 5 min.)"), early


def test_a_presigned_request_runs_out(core):
    signer = botocore.auth.SigV4QueryAuth
    assert send(signed(core, signer=signer, expires=60, offset_s=-30)).status_code == 200
    answer = send(signed(core, signer=signer, expires=60, offset_s=-90))
    assert code(answer) == "InvalidSignatureException" and "expired" in answer.text
    assert code(send(signed(core, signer=signer, expires=604801))) == "IncompleteSignatureException"
    changed = signed(core, signer=signer)
    assert code(send(changed, url=changed.url + "&endpointType=iot%3AJobs")) == "InvalidSignatureException"


def test_every_octet_of_a_signature_counts(core):
    prepared = signed(core)
    header = prepared.headers["Authorization"]
    header = header.decode() if isinstance(header, bytes) else header
    start = header.index("Signature=") + len("Signature=")
    for at in range(start, len(header), 7):
        other = header[:at] + ("0" if header[at] != "0" else "1") + header[at + 1:]
        assert code(send(prepared, headers={"Authorization": other})) == "InvalidSignatureException"
    for other in (header[:-1], header + "0", header[:start]):
        assert code(send(prepared, headers={"Authorization": other})) in (
            "InvalidSignatureException", "IncompleteSignatureException")


def test_botocore_and_we_agree_on_random_requests(core):
    """Names, values and bodies of any characters; what is asked for need not be there, but the signature must hold."""
    chooser = random.Random(20261124)
    alphabet = "abcXYZ019-_.~:/?#[]@!$&'()*+,;= %\"<>\\^`{|}éλ中"
    for _ in range(150):
        text = "".join(chooser.choice(alphabet) for _ in range(chooser.randrange(1, 20)))
        label = "".join(f"%{octet:02X}" for octet in text.encode())
        params = {"".join(chooser.choice("abcXYZ-._~:/ é") for _ in range(4)): text for _ in range(chooser.randrange(3))}
        body = text.encode() * chooser.randrange(3)
        method, path = chooser.choice((("GET", "/certificates/"), ("POST", "/policies/"), ("POST", "/attached-policies/")))
        answer = send(signed(core, method, path + label, body=body if method == "POST" else b"", params=params,
                             headers={"x-amzn-principal": "two   spaces " + text.encode("ascii", "ignore").decode()},
                             service=chooser.choice(("iot", "execute-api"))))
        assert code(answer) == "InvalidRequestException", (text, params, answer.status_code, answer.text)


def test_a_session_token_is_signed_like_any_header(core):
    prepared = signed(core, token="AQoDYXdzEPT")
    assert send(prepared).status_code == 200
    assert code(send(prepared, headers={"X-Amz-Security-Token": "other"})) == "InvalidSignatureException"


def test_a_reader_may_read_only(core):
    answer = core.aws("describe-endpoint", key=READER, secret=READER_SECRET)
    assert answer == {"endpointAddress": "broker.example"}
    refused = core.aws("create-policy", "--policy-name", "p", "--policy-document", "{}", key=READER,
                       secret=READER_SECRET, check=False)
    assert "AccessDeniedException" in refused.stderr and "iot:CreatePolicy" in refused.stderr


def test_no_secret_and_no_signature_stands_in_the_log(core):
    send(signed(core, signer=botocore.auth.SigV4QueryAuth))
    log = core.log_path.read_text()
    assert "canary" not in log and "X-Amz-Signature" not in log and "Signature=" not in log
    assert any(event.get("actor") == KEY for event in core.events())


def test_what_is_not_there_is_an_unknown_operation(core):
    for method, path in (("GET", "/nothing"), ("PUT", "/endpoint"), ("GET", "/certificates/a/b")):
        answer = send(signed(core, method, path))
        assert (answer.status_code, code(answer)) == (404, "UnknownOperationException"), answer.text


def test_malformed_requests_get_aws_errors(core):
    cases = [
        ("POST", "/policies/a", b"{", {}, "InvalidRequestException"),
        ("POST", "/policies/a", b"[]", {}, "InvalidRequestException"),
        ("POST", "/policies/a", b'{"policyDocument":"a","policyDocument":"b"}', {}, "InvalidRequestException"),
        ("POST", "/policies/a", b'{"policyDocument":' + b"[" * 50 + b"]" * 50 + b"}", {}, "InvalidRequestException"),
        ("POST", "/policies/a", b'{"policyDocument":"\xff"}', {}, "InvalidRequestException"),
        ("POST", "/policies/a", b'{"policyDocument":"\\u0000"}', {}, "InvalidRequestException"),
        ("POST", "/policies/a", b'{"policyDocument":7}', {}, "InvalidRequestException"),
        ("POST", "/policies/a", b"x" * (1024 * 1024 + 1), {}, "RequestEntityTooLargeException"),
        ("GET", "/certificates?pageSize=a", b"", {}, "InvalidRequestException"),
    ]
    for method, path, body, params, want in cases:
        answer = send(signed(core, method, path, body=body, params=params, headers={"Content-Type": "application/json"}))
        assert code(answer) == want, (path, body[:40], answer.status_code, answer.text)
        assert "message" in answer.json()


@pytest.mark.parametrize("content,why", [
    ("", "at least one user"), ("KEY\n", "ACCESS_KEY SECRET_KEY"), ("KEY SECRET admin\n", "ACCESS_KEY SECRET_KEY"),
    ("A B\nA C\n", "twice"), ("A/B C\n", "ACCESS_KEY SECRET_KEY"), ("A B readonly more\n", "ACCESS_KEY SECRET_KEY")])
def test_a_bad_credentials_file_stops_the_start(cluster, content, why):
    core = LocalCore(cluster)
    try:
        (core.dir / "credentials").write_text(content)
        core.start(wait=False)
        assert core.process.wait(20) == 78
        assert why in core.log_tail() and "SECRET\"" not in core.log_tail()
    finally:
        core.close()


def test_a_credentials_file_that_others_may_read_stops_the_start(cluster):
    core = LocalCore(cluster)
    try:
        (core.dir / "credentials").chmod(0o644)
        core.start(wait=False)
        assert core.process.wait(20) == 78
        assert "secret_file_mode" in core.log_tail()
    finally:
        core.close()


def test_quotas_throttle_as_aws_does(cluster):
    with LocalCore(cluster, quotas="DescribeEndpoint 2\n* 1000\n# all others\n") as core:
        client = core.client()
        codes = []
        for _ in range(8):
            try:
                client.describe_endpoint()
                codes.append("OK")
            except client.exceptions.ThrottlingException as error:
                assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
                codes.append("Throttling")
        assert codes[:2] == ["OK", "OK"] and "Throttling" in codes, codes
        for _ in range(20):
            client.list_policies()


def test_https_with_the_certificate_of_a_file(cluster, tmp_path):
    from harness.x509 import openssl
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem",
            "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost", "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1", cwd=tmp_path)
    (tmp_path / "key.pem").chmod(0o600)
    with LocalCore(cluster, config={"iotcore_tls_certificates": f"{tmp_path}/cert.pem:{tmp_path}/key.pem"}) as core:
        assert core.client().describe_endpoint()["endpointAddress"] == "broker.example"
        assert requests.get(f"{core.url}/healthz", verify=str(tmp_path / "cert.pem"), timeout=10).json() == {"status": "ok"}


def test_another_account_on_the_same_database_stops_the_start(cluster, core):
    other = LocalCore(cluster, config={"iotcore_account": "999999999999"}, share=core)
    try:
        other.start(wait=False)
        assert other.process.wait(20) == 78
        assert "iotcore_account_differs" in other.log_tail()
    finally:
        other.close()


def test_a_request_in_flight_is_finished_at_sigterm(cluster):
    """A session that holds the account's row keeps a writing call in flight; it is answered after the signal."""
    import contextlib
    import signal
    import threading

    import psycopg2

    from harness.stack import wait_until
    with LocalCore(cluster) as core:
        core.aws("get-registration-code")
        with contextlib.closing(psycopg2.connect(core.database_url)) as holder:
            holder.cursor().execute("SELECT FROM iotcore.account FOR UPDATE")
            answers = []
            caller = threading.Thread(target=lambda: answers.append(send(signed(core, "GET", "/registrationcode"))))
            caller.start()
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            wait_until(lambda: core.query(waiting)[0][0] == 1, "a call that waits for the row")
            core.process.send_signal(signal.SIGTERM)
            holder.rollback()
            caller.join(20)
        assert answers[0].status_code == 200 and len(answers[0].json()["registrationCode"]) == 64
        assert core.stop() == 0
        core.start()


def test_health_and_metrics(core):
    assert requests.get(f"{core.url}/readyz", timeout=5).json() == {"status": "ready"}
    text = requests.get(f"{core.url}/metrics", timeout=5).text
    assert 'jitrca_http_requests_total{method="GET",route="/endpoint",status="200"}' in text
    assert "jitrca_db_pool_connections" in text


def test_a_database_that_is_away_is_503_and_comes_back(cluster):
    with LocalCore(cluster) as core:
        pass  # migrated
    broken = LocalCore(cluster, config={"database_url": core.database_url.replace("host=", "host=/nowhere")}, share=core)
    try:
        broken.start(wait=False)
        from harness.stack import wait_until

        def answers():
            try:
                return requests.get(f"{broken.url}/healthz", timeout=2).status_code == 200
            except requests.RequestException:
                return False
        wait_until(answers, "health")
        assert requests.get(f"{broken.url}/readyz", timeout=9).status_code == 503
        answer = send(signed(broken, "GET", "/certificates"))
        assert (answer.status_code, code(answer)) == (503, "ServiceUnavailableException")
        assert send(signed(broken)).status_code == 200  # needs no database
        assert broken.stop() == 0
    finally:
        broken.close()


def test_the_body_is_hashed_by_us(core):
    body = json.dumps({"policyDocument": "{}"}).encode()
    prepared = signed(core, "POST", "/policies/hashed", body=body, headers={"Content-Type": "application/json"})
    assert code(send(prepared, body=body + b" ")) == "InvalidSignatureException"
    claimed = signed(core, "POST", "/policies/hashed", body=body, headers={
        "Content-Type": "application/json", "x-amz-content-sha256": hashlib.sha256(body).hexdigest()})
    assert code(send(claimed)) == "MalformedPolicyException"
