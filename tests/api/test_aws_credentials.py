"""The credential chain: each source against a local stand-in, the order among them, and renewal before the end."""
import http.server
import json
import re
import threading
import time
import urllib.parse

import pytest
from botocore import auth, awsrequest, credentials

from test_aws_client import Client

NOWHERE = "http://127.0.0.1:1"
KEYS = {"AccessKeyId": "ASIAROLE", "SecretAccessKey": "role-secret", "Token": "role-token=="}
PROFILES = "[default]\naws_access_key_id = AKIDDEF\naws_secret_access_key=def/secret+=\n\n"


def rfc3339(s):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(s))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        double = self.server.double
        with double.lock:
            double.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            status, answer = double.answer(self.command, self.path, self.headers, body.decode())
        if answer is None:
            double.released.wait(30)
            answer = ""
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    do_GET = do_PUT = do_POST = handle_any


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients that gave up


class Sources:
    """Container endpoint, instance metadata and STS in one server."""

    def __init__(self):
        self.lock, self.released = threading.Lock(), threading.Event()
        self.seen, self.expires_s, self.number = [], int(time.time()) + 3600, 0
        self.override = {}  # path: (status, text); text None: it hangs
        self.base_secret = {}
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.double = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": .05}, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def keys(self, **more):
        self.number += 1
        return json.dumps({**KEYS, "AccessKeyId": f"ASIAROLE{self.number}", "Expiration": rfc3339(self.expires_s), **more})

    def answer(self, method, path, headers, body):
        if path in self.override:
            return self.override[path]
        if path == "/creds":
            return (200, self.keys()) if headers.get("authorization", "tok") == "tok" else (403, "")
        if path == "/latest/api/token":
            return (200, "meta-token") if method == "PUT" and headers.get("x-aws-ec2-metadata-token-ttl-seconds") else (400, "")
        if path.startswith("/latest/meta-data/iam/security-credentials/"):
            if headers.get("x-aws-ec2-metadata-token") != "meta-token":
                return 401, ""
            return 200, "my-role" if path.endswith("/") else self.keys(Code="Success", Type="AWS-HMAC")
        if path == "/" and method == "POST":
            return self.sts(headers, body)
        return 404, ""

    def sts(self, headers, body):
        form = dict(urllib.parse.parse_qsl(body, strict_parsing=True))
        if form["Action"] == "AssumeRole":
            self.check_signature(headers, body)
        elif "authorization" in headers:
            return 400, "signed"
        self.number += 1
        name = form["Action"]
        return 200, (f'<{name}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{name}Result><Credentials>'
                     f"<AccessKeyId>ASIASTS{self.number}</AccessKeyId><SecretAccessKey>sts/secret+</SecretAccessKey>"
                     f"<SessionToken>sts-token==</SessionToken><Expiration>{rfc3339(self.expires_s)}</Expiration>"
                     f"</Credentials></{name}Result></{name}Response>")

    def check_signature(self, headers, body):
        access_key, names, signature = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/eu-west-1/sts/aws4_request, "
                                                    r"SignedHeaders=([^,]+), Signature=(\w+)", headers["authorization"]).groups()
        request = awsrequest.AWSRequest(method="POST", url=f"http://{headers['host']}/", data=body.encode())
        for name in names.split(";"):
            request.headers.add_header(name, headers[name])
        request.context["timestamp"] = headers["x-amz-date"]
        signer = auth.SigV4Auth(credentials.Credentials(access_key, self.base_secret[access_key]), "sts", "eu-west-1")
        assert {"host", "x-amz-date", "content-type"} <= set(names.split(";"))
        assert ("x-amz-security-token" in headers) == ("x-amz-security-token" in names)
        assert signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request) == signature


@pytest.fixture
def sources():
    with Sources() as it:
        yield it


@pytest.fixture
def files(tmp_path):
    """Writes the shared files and gives the environment that names them."""
    def write(config="", shared="", **environment):
        (tmp_path / "config").write_text(config)
        (tmp_path / "credentials").write_text(shared)
        return {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
                "AWS_EC2_METADATA_DISABLED": "true", **environment}
    return write


def found(environment, **config):
    with Client(NOWHERE, environment, **config) as client:
        return client.ok("credentials")


def refused(code, environment, **config):
    with Client(NOWHERE, environment, **config) as client:
        answer = client.refused(code, "credentials")
        assert answer["status"] == ("ERR_UNAVAILABLE" if code == "aws_credentials_unreachable" else "ERR_UNAUTHENTICATED")
        # A call says the same, and is not sent.
        call = client.refused(code, "describe_thing", name="t")
        assert call["failure"]["error"] == "credentials" and call["failure"]["attempts"] == 0
    assert not any(secret in client.log for secret in ("role-secret", "role-token", "sts/secret", "sts-token", "meta-token"))
    return answer["text"]


# ---- environment and files ----

def test_environment(files):
    keys = {"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "env-s"}
    env = files(shared=PROFILES)
    assert found({**env, **keys}) == {"access_key": "AKIDENV", "secret_key": "env-s", "session_token": "", "source": "environment",
                                      "expires_s": 0}
    assert found({**env, **keys, "AWS_SESSION_TOKEN": "t", "AWS_SECURITY_TOKEN": "u"})["session_token"] == "t"
    assert found({**env, **keys, "AWS_SECURITY_TOKEN": "u"})["session_token"] == "u"
    # Named in the configuration, the profile goes first; named in the environment, it does not.
    assert found({**env, **keys}, profile="default")["access_key"] == "AKIDDEF"
    assert found({**env, **keys, "AWS_PROFILE": "default"})["access_key"] == "AKIDENV"


@pytest.mark.parametrize("keys", [
    {"AWS_ACCESS_KEY_ID": "AKID"}, {"AWS_ACCESS_KEY_ID": "A" * 129, "AWS_SECRET_ACCESS_KEY": "s"},
    {"AWS_ACCESS_KEY_ID": "A B", "AWS_SECRET_ACCESS_KEY": "s"}, {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "s" * 257},
    {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "a\r\nX-Other: b"},
    {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "s", "AWS_CREDENTIAL_EXPIRATION": "soon"},
    {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "s", "AWS_CREDENTIAL_EXPIRATION": "2001-01-01T00:00:00Z"},
])
def test_bad_environment(files, keys):
    refused("aws_credentials_malformed", files(**keys))


def test_files(files, tmp_path):
    env = files(config="[default]\nregion = eu-west-1\n[profile two]\naws_access_key_id = AKIDCONF2\naws_secret_access_key = c2\n"
                       "[profile \"a b\"]\naws_access_key_id=AKIDAB\naws_secret_access_key=ab\n",
                shared=PROFILES + "[two]\naws_access_key_id = AKIDTWO\naws_secret_access_key = two\naws_session_token = t2\n")
    assert found(env)["access_key"] == "AKIDDEF" and found(env)["secret_key"] == "def/secret+="
    two = found({**env, "AWS_PROFILE": "two"})
    assert (two["access_key"], two["session_token"], two["source"]) == ("AKIDTWO", "t2", "credentials file")
    assert found(env, profile="a b")["source"] == "config file"
    refused("aws_profile_missing", {**env, "AWS_PROFILE": "three"})
    # Without the variables, under HOME; a file that is not there is an empty one.
    home = tmp_path / ".aws"
    home.mkdir()
    (home / "credentials").write_text(PROFILES)
    assert found({"HOME": str(tmp_path)})["access_key"] == "AKIDDEF"
    assert found({"HOME": str(tmp_path), "AWS_CONFIG_FILE": "~/.aws/none"})["access_key"] == "AKIDDEF"
    refused("aws_credentials_missing", {"HOME": str(tmp_path / "none"), "AWS_EC2_METADATA_DISABLED": "TRUE"})
    refused("aws_credentials_missing", {"AWS_EC2_METADATA_DISABLED": "true"})


@pytest.mark.parametrize("text", ["[default\n", "aws_access_key_id = a\n", "[default]\nno equals sign\n", "[default]\n= v\n", "[]\n",
                                  PROFILES + "[default]\naws_access_key_id = again\n", "x" * 70000,
                                  "[default]\naws_access_key_id = a\x01b\n"])
def test_bad_files(files, text):
    assert "AKID" not in refused("aws_profile_malformed", files(shared=text))
    if "again" not in text:
        refused("aws_profile_malformed", files(config=text))


@pytest.mark.parametrize("config, code", [
    ("sso_start_url = https://x\n", "aws_credentials_unsupported"), ("credential_process = /bin/false\n", "aws_credentials_unsupported"),
    ("role_arn = arn:aws:iam::1:role/r\nsource_profile = two\nmfa_serial = arn:x\n", "aws_credentials_unsupported"),
    ("role_arn = arn:aws:iam::1:role/r\n", "aws_profile_malformed"),
    ("role_arn = arn:aws:iam::1:role/r\ncredential_source = Moon\n", "aws_profile_malformed"),
    ("role_arn = arn:aws:iam::1:role/r\nsource_profile = two\ncredential_source = Environment\n", "aws_profile_malformed"),
    ("role_arn = arn:aws:iam::1:role/r\nsource_profile = none\n", "aws_profile_missing"),
    ("role_arn = arn:aws:iam::1:role/r\nsource_profile = default\n", "aws_credentials_unsupported"),
    ("role_arn = arn:aws:iam::1:role/r\nweb_identity_token_file = /nonexistent\n", "aws_credentials_malformed"),
])
def test_unsupported_profiles(files, config, code):
    refused(code, files(config="[default]\n" + config + "[profile two]\naws_access_key_id=A\naws_secret_access_key=s\n"))


# ---- STS ----

def test_assumed_role(files, sources):
    sources.base_secret["AKIDBASE"] = "base"
    env = files(config="[default]\nrole_arn = arn:aws:iam::123456789012:role/ca\nsource_profile = base\nexternal_id = e x\n",
                shared="[base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = base\naws_session_token = bt==\n",
                AWS_ENDPOINT_URL_STS=sources.url)
    keys = found(env)
    assert keys == {"access_key": "ASIASTS1", "secret_key": "sts/secret+", "session_token": "sts-token==", "source": "assumed role",
                    "expires_s": sources.expires_s}
    (_, _, headers, body), = sources.seen
    assert headers["x-amz-security-token"] == "bt=="
    assert dict(urllib.parse.parse_qsl(body.decode())) == {
        "Action": "AssumeRole", "Version": "2011-06-15", "RoleArn": "arn:aws:iam::123456789012:role/ca", "RoleSessionName": "jitrca",
        "ExternalId": "e x"}


def test_role_of_credential_source(files, sources):
    role = "[default]\nrole_arn = arn:aws:iam::1:role/r\nrole_session_name = me\ncredential_source = "
    sources.base_secret.update({"AKIDENV": "s", "ASIAROLE1": "role-secret", "ASIAROLE3": "role-secret"})
    base = {"AWS_ENDPOINT_URL_STS": sources.url, "AWS_CONTAINER_CREDENTIALS_FULL_URI": sources.url + "/creds",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": sources.url}
    assert found(files(config=role + "EcsContainer\n", **base))["access_key"] == "ASIASTS2"
    assert found(files(config=role + "Ec2InstanceMetadata\n", **base))["access_key"] == "ASIASTS4"
    environment = {**base, "AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "s"}
    assert found(files(config=role + "Environment\n", **environment), profile="default")["access_key"] == "ASIASTS5"


def test_web_identity(files, sources, tmp_path):
    token = tmp_path / "token"
    token.write_text("first.token\n")
    env = files(AWS_WEB_IDENTITY_TOKEN_FILE=str(token), AWS_ROLE_ARN="arn:aws:iam::123456789012:role/ca",
                AWS_ROLE_SESSION_NAME="pod", AWS_ENDPOINT_URL_STS=sources.url + "/")
    with Client(NOWHERE, env) as client:
        assert client.ok("credentials")["source"] == "web identity"
        token.write_text("second.token")
        assert client.ok("credentials", ahead_s=3000)["access_key"] == "ASIASTS2"
    forms = [dict(urllib.parse.parse_qsl(body.decode())) for _, _, _, body in sources.seen]
    assert [form["WebIdentityToken"] for form in forms] == ["first.token", "second.token"]
    assert forms[0]["RoleSessionName"] == "pod" and forms[0]["Action"] == "AssumeRoleWithWebIdentity"
    profile = files(config=f"[default]\nrole_arn = arn:aws:iam::1:role/r\nweb_identity_token_file = {token}\n",
                    AWS_ENDPOINT_URL_STS=sources.url)
    assert found(profile)["access_key"] == "ASIASTS3"


@pytest.mark.parametrize("content", ["", "two words", "x" * 20001, "a\nb\n", None])
def test_bad_web_identity_token(files, sources, tmp_path, content):
    if content is not None:
        (tmp_path / "token").write_text(content)
    refused("aws_credentials_malformed", files(AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "token"), AWS_ROLE_ARN="arn:aws:iam::1:role/r",
                                               AWS_ENDPOINT_URL_STS=sources.url))
    assert not sources.seen


@pytest.mark.parametrize("url", ["http://sts.example.com", "https://h/path", "ftp://127.0.0.1", "https://u@h"])
def test_bad_sts_url(files, tmp_path, url):
    (tmp_path / "token").write_text("t")
    env = files(AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "token"), AWS_ROLE_ARN="arn:aws:iam::1:role/r", AWS_ENDPOINT_URL_STS=url)
    refused("aws_credentials_malformed", env)
    del env["AWS_ROLE_ARN"]
    refused("aws_credentials_malformed", env)


@pytest.mark.parametrize("status, text, code", [
    (403, "<ErrorResponse/>", "aws_credentials_refused"), (400, "", "aws_credentials_refused"),
    (500, "", "aws_credentials_unreachable"), (429, "", "aws_credentials_unreachable"),
    (200, "<AccessKeyId>A</AccessKeyId>", "aws_credentials_malformed"), (200, "", "aws_credentials_malformed"),
    (200, "<AccessKeyId>A&amp;B</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
          "<Expiration>2099-01-01T00:00:00Z</Expiration>", "aws_credentials_malformed"),
    (200, "<AccessKeyId>A</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
          "<Expiration>2001-01-01T00:00:00Z</Expiration>", "aws_credentials_malformed"),
    (200, "x" * 70000, "aws_credentials_unreachable"),
])
def test_bad_sts_answers(files, sources, tmp_path, status, text, code):
    sources.override["/"] = (status, text)
    (tmp_path / "token").write_text("t")
    refused(code, files(AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "token"), AWS_ROLE_ARN="arn:aws:iam::1:role/r",
                        AWS_ENDPOINT_URL_STS=sources.url))


# ---- container ----

def test_container(files, sources, tmp_path):
    env = files(AWS_CONTAINER_CREDENTIALS_FULL_URI=sources.url + "/creds", AWS_CONTAINER_AUTHORIZATION_TOKEN="tok")
    assert found(env) == {"access_key": "ASIAROLE1", "secret_key": "role-secret", "session_token": "role-token==", "source": "container",
                          "expires_s": sources.expires_s}
    (tmp_path / "auth").write_text("tok\n")
    assert found({**env, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "other",
                  "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "auth")})["access_key"] == "ASIAROLE2"
    refused("aws_credentials_refused", {**env, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "other"})
    assert [headers["authorization"] for _, _, headers, _ in sources.seen][:2] == ["tok", "tok"]


@pytest.mark.parametrize("variables", [
    {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.3/creds"}, {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com/"},
    {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "ftp://127.0.0.1/"}, {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1.example.com/"},
    {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "creds"}, {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/" + "x" * 3000},
    {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "a\r\nb: c"},
    {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/nonexistent"},
])
def test_bad_container(files, variables):
    refused("aws_credentials_malformed", files(**variables))


@pytest.mark.parametrize("status, text, code", [
    (200, "{", "aws_credentials_malformed"), (200, "{}", "aws_credentials_malformed"), (200, "[]", "aws_credentials_malformed"),
    (200, json.dumps({**KEYS, "Expiration": "never"}), "aws_credentials_malformed"), (404, "", "aws_credentials_refused"),
    (200, json.dumps({**KEYS, "AccessKeyId": 5}), "aws_credentials_malformed"), (500, "", "aws_credentials_unreachable"),
    (200, json.dumps({**KEYS, "Token": "a\nb"}), "aws_credentials_malformed"),
])
def test_bad_container_answers(files, sources, status, text, code):
    sources.override["/creds"] = (status, text)
    refused(code, files(AWS_CONTAINER_CREDENTIALS_FULL_URI=sources.url + "/creds"))


# ---- instance metadata ----

def test_instance_metadata(files, sources):
    env = files(AWS_EC2_METADATA_SERVICE_ENDPOINT=sources.url + "/")
    del env["AWS_EC2_METADATA_DISABLED"]
    keys = found(env)
    assert (keys["access_key"], keys["source"]) == ("ASIAROLE1", "instance metadata")
    assert [path.rpartition("/")[2] for _, path, _, _ in sources.seen] == ["token", "", "my-role"]
    refused("aws_credentials_missing", {**env, "AWS_EC2_METADATA_DISABLED": "true"})
    refused("aws_credentials_malformed", {**env, "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://example.com"})


@pytest.mark.parametrize("path, status, text, code", [
    ("/latest/api/token", 403, "", "aws_credentials_refused"), ("/latest/api/token", 200, "", "aws_credentials_malformed"),
    ("/latest/api/token", 200, "a\r\nb", "aws_credentials_malformed"), ("/latest/api/token", 200, None, "aws_credentials_unreachable"),
    ("/latest/meta-data/iam/security-credentials/", 404, "", "aws_credentials_refused"),
    ("/latest/meta-data/iam/security-credentials/", 200, "two roles", "aws_credentials_malformed"),
    ("/latest/meta-data/iam/security-credentials/my-role", 200, '{"Code": "Failed"}', "aws_credentials_refused"),
])
def test_bad_instance_metadata(files, sources, path, status, text, code):
    sources.override[path] = (status, text)
    env = files(AWS_EC2_METADATA_SERVICE_ENDPOINT=sources.url)
    del env["AWS_EC2_METADATA_DISABLED"]
    refused(code, env)
    # No fall-back to version 1, which needs no token.
    assert all(command == "PUT" or "x-aws-ec2-metadata-token" in headers for command, _, headers, _ in sources.seen)


# ---- renewal ----

def test_renewal(files, sources):
    env = files(AWS_CONTAINER_CREDENTIALS_FULL_URI=sources.url + "/creds")
    with Client(NOWHERE, env) as client:
        assert client.ok("credentials")["access_key"] == "ASIAROLE1"
        assert client.ok("credentials", ahead_s=2600)["access_key"] == "ASIAROLE1"
        sources.expires_s += 4000
        assert client.ok("credentials", ahead_s=200)["access_key"] == "ASIAROLE2"
        # The source is away while the old ones are good: they stay in use, and it is not asked each time.
        sources.override["/creds"] = (500, "")
        assert client.ok("credentials", ahead_s=4000)["access_key"] == "ASIAROLE2"
        asked = len(sources.seen)
        assert client.ok("credentials")["access_key"] == "ASIAROLE2"
        assert len(sources.seen) == asked
        # They have run out.
        client.refused("aws_credentials_unreachable", "credentials", ahead_s=2000)
        del sources.override["/creds"]
        sources.expires_s += 100000
        assert client.ok("credentials", ahead_s=10)["access_key"].startswith("ASIAROLE")
        # Refused by the service: looked up anew, but not at once again.
        first = client.ok("credentials")["access_key"]
        client.ok("doubt", ahead_s=6)
        second = client.ok("credentials")["access_key"]
        client.ok("doubt")
        assert first != second == client.ok("credentials")["access_key"]


def test_one_asks_for_all(files, sources):
    with Client(NOWHERE, files(AWS_CONTAINER_CREDENTIALS_FULL_URI=sources.url + "/creds")) as client:
        answer = client.ok("repeat", call={"op": "credentials"}, count=64, threads=16)
        assert answer["codes"] == {"ok": 64} and len(sources.seen) == 1
