"""Those who are told: a webhook's receiver, a double of SNS held against botocore's model, syslog's receivers, and a mail
server (aiosmtpd). Each keeps what came, and can be told to misbehave."""
import asyncio
import contextlib
import http.server
import os
import pathlib
import socket
import ssl
import threading
import urllib.parse

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.loaders
import botocore.model
import botocore.serialize
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from harness.stack import free_port


class Kept:
    """What came, for whoever waits for it."""

    def __init__(self):
        self.items = []
        self.changed = threading.Condition()

    def add(self, item):
        with self.changed:
            self.items.append(item)
            self.changed.notify_all()

    def wait(self, condition=lambda item: True, what="a message", deadline_s=30):
        with self.changed:
            found = self.changed.wait_for(lambda: [item for item in self.items if condition(item)], deadline_s)
        assert found, f"{what}: not within {deadline_s} s; there are {self.items}"
        return found[0]

    def all(self, condition=lambda item: True):
        with self.changed:
            return [item for item in self.items if condition(item)]


class HttpReceiver:
    """Keeps (path, headers, body) of each POST; `mode` says what is answered."""

    def __init__(self, tls=None, port=None):
        self.mode = "ok"
        self.kept = Kept()
        self.release = threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                receiver.kept.add((self.path, dict(self.headers.items()), body))
                receiver.answer(self, body)

            do_GET = do_POST

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port or free_port()), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def answer(self, handler, body):
        mode = self.mode
        if mode == "hang":
            self.release.wait(60)
            handler.close_connection = True
            return
        if mode == "garbage":
            handler.wfile.write(b"\x00\xff\r\n\r\nthis is no HTTP\n" * 100)
            handler.close_connection = True
            return
        status, headers, text = {
            "ok": (200, {}, b"thanks"), "redirect": (302, {"Location": f"{self.url}/elsewhere"}, b""),
            "endless": (200, {}, b"x" * 1000000), "gone": (410, {}, b"gone \r\nfor good\x1b[31m"),
            "busy": (503, {}, b"later")}[mode]
        self.reply(handler, status, headers, text)

    @staticmethod
    def reply(handler, status, headers, text):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(text)

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Sns(HttpReceiver):
    """Publish, as botocore would have sent it: the parameters are of the model, the signature is AWS's own."""

    KEYS = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    REGION = "eu-west-1"

    def __init__(self):
        self.model = botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model("sns", "service-2"), "sns")
        self.messages = Kept()
        self.findings = []
        super().__init__()

    def answer(self, handler, body):
        if self.mode != "ok":
            super().answer(handler, body)
            return
        try:
            self.messages.add(self.read(handler, body))
        except (AssertionError, KeyError, ValueError) as wrong:
            self.findings.append(repr(wrong))
            self.reply(handler, 400, {}, b"<ErrorResponse><Error><Code>InvalidParameter</Code></Error></ErrorResponse>")
            return
        self.reply(handler, 200, {"Content-Type": "text/xml"}, b"<PublishResponse><PublishResult><MessageId>94f20ce6"
                   b"</MessageId></PublishResult></PublishResponse>")

    def read(self, handler, body):
        form = dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True))
        shape = self.model.operation_model(form["Action"]).input_shape
        params = {name: form[name] for name in shape.members if name in form}
        entries = {}
        for key, value in form.items():
            if key.startswith("MessageAttributes.entry."):
                number, part = key[len("MessageAttributes.entry."):].split(".", 1)
                entries.setdefault(number, {})[part] = value
        params["MessageAttributes"] = {entry["Name"]: {"DataType": entry["Value.DataType"],
                                                       "StringValue": entry["Value.StringValue"]}
                                       for entry in entries.values()}
        written = botocore.serialize.create_serializer(self.model.metadata["protocol"]).serialize_to_request(
            params, self.model.operation_model("Publish"))
        assert written["body"] == form, (written["body"], form)
        assert len(params["Subject"]) <= 100 and params["Subject"].isprintable() and params["Subject"].isascii()
        self.check_signature(handler, body)
        return params

    def check_signature(self, handler, body):
        """Signs the same again, at the same time, with the headers that were signed."""
        came = handler.headers["Authorization"]
        signed = came.split("SignedHeaders=")[1].split(",")[0].split(";")
        request = botocore.awsrequest.AWSRequest("POST", f"{self.url}/", data=body, headers={
            name: handler.headers[name] for name in signed if name != "host"})
        signer = botocore.auth.SigV4Auth(botocore.credentials.Credentials(*self.KEYS), "sns", self.REGION)
        request.context["timestamp"] = handler.headers["X-Amz-Date"]
        canonical = signer.canonical_request(request)
        scope = signer.string_to_sign(request, canonical)
        wanted = signer.signature(scope, request)
        assert came.endswith(f"Signature={wanted}"), (came, canonical)


class Mail:
    """A mail server on one port that may go away and come back; keeps (sender, recipients, octets)."""

    def __init__(self, tls=None, starttls=None, login=None):
        self.tls, self.starttls, self.login = tls, starttls, login
        self.port = free_port()
        self.kept = Kept()
        self.refused = set()  # recipients
        self.loop = self.server = self.thread = None

    async def handle_RCPT(self, _server, _session, envelope, address, _options):
        if address in self.refused:
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server, session, envelope):
        self.kept.add((envelope.mail_from, list(envelope.rcpt_tos), envelope.content, session.ssl is not None,
                       session.authenticated))
        return "250 OK"

    def authenticate(self, _server, _session, _envelope, _mechanism, data):
        good = isinstance(data, LoginPassword) and (data.login.decode(), data.password.decode()) == self.login
        return AuthResult(success=good)

    def start(self):
        options = {}
        if self.starttls:
            options = {"tls_context": context_of(self.starttls), "require_starttls": True}
        if self.login:
            options |= {"authenticator": self.authenticate, "auth_required": True, "auth_require_tls": bool(self.starttls)}
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(self.loop.create_server(
            lambda: SMTP(self, hostname="mail.test", loop=self.loop, **options), "127.0.0.1", self.port,
            ssl=context_of(self.tls) if self.tls else None))
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        return self

    def stop(self):
        self.server.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


def context_of(pair):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    return context


class Syslog:
    """One receiver: udp, tcp, tls or local. TCP's messages come by octet counting (RFC 6587, RFC 5425)."""

    def __init__(self, transport, tls=None, directory=None):
        self.transport, self.kept, self.stopping = transport, Kept(), False
        self.context = context_of(tls) if tls else None
        if transport == "local":
            self.path = pathlib.Path(directory) / "log"
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.socket.bind(str(self.path))
            os.chmod(self.path, 0o666)
        else:
            self.port = free_port()
            kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
            self.socket = socket.socket(socket.AF_INET, kind)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(("127.0.0.1", self.port))
            if kind == socket.SOCK_STREAM:
                self.socket.listen()
        self.socket.settimeout(0.1)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping:
            with contextlib.suppress(TimeoutError, ssl.SSLError, ConnectionError):
                if self.transport in ("udp", "local"):
                    self.kept.add(self.socket.recv(65536))
                else:
                    connection, _ = self.socket.accept()
                    connection.settimeout(10)
                    with self.context.wrap_socket(connection, server_side=True) if self.context else connection as peer:
                        self.read(peer)

    def read(self, peer):
        data = b""
        while True:
            more = peer.recv(65536)
            data += more
            while b" " in data:
                length, rest = data.split(b" ", 1)
                assert length.isdigit() and not length.startswith(b"0"), data
                if len(rest) < int(length):
                    break
                self.kept.add(rest[:int(length)])
                data = rest[int(length):]
            if not more:
                return

    def close(self):
        self.stopping = True
        self.thread.join()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
