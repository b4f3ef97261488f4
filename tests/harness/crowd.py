"""Many devices that knock at a broker until they are let in: TLS and CONNECT by hand, in one thread of asyncio."""
import asyncio
import contextlib
import random
import ssl
import struct
import threading
import time

# More at once than a broker of one thread can serve, few enough that none waits for its handshake in vain.
AT_ONCE = 48
ATTEMPT_S = 15
FIRST_PAUSE_S, MOST_PAUSE_S = 0.2, 2.0


def connect_packet(client_id, keepalive_s=60):
    """CONNECT of MQTT 3.1.1 (section 3.1): clean session, no will, no name."""
    name = client_id.encode()
    body = b"\x00\x04MQTT\x04\x02" + struct.pack("!HH", keepalive_s, len(name)) + name
    assert len(body) < 128
    return bytes((0x10, len(body))) + body


def publish_packet(topic, payload):
    """PUBLISH, QoS 1, packet identifier 1 (section 3.3)."""
    name = topic.encode()
    body = struct.pack("!H", len(name)) + name + b"\x00\x01" + payload
    assert len(body) < 128
    return bytes((0x32, len(body))) + body


class Knocker:
    """What became of one device."""

    def __init__(self, issued):
        self.issued = issued
        self.attempts = 0
        self.first_at = self.accepted_at = None


class Crowd(threading.Thread):
    """
    Starts knocking at once; done when every device was answered CONNACK 0 and its PUBLISH was acknowledged,
    or when limit_s are over. `accepted` grows meanwhile.
    """

    def __init__(self, loop, devices, limit_s, at_once=AT_ONCE):
        super().__init__(daemon=True)
        self.port, self.directory = loop.broker.port, loop.broker.dir
        self.limit_s = limit_s
        self.at_once = at_once
        self.knockers = [Knocker(issued) for issued in devices]
        for one in self.knockers:
            one.issued.write(self.directory)
        self.roots = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca_file = str(loop.broker.ca_file)
        self.accepted = 0
        self.cpu_s = 0.0
        self.problems = []
        self.start_at = None

    def run(self):
        self.start_at = time.monotonic()
        before = time.thread_time()
        try:
            asyncio.run(self._all())
        except Exception as error:  # a thread must not end unnoticed
            self.problems.append(repr(error))
        self.cpu_s = time.thread_time() - before

    async def _all(self):
        turn = asyncio.Semaphore(self.at_once)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(self._one(one, turn) for one in self.knockers)), self.limit_s)

    async def _one(self, one, turn):
        pause_s = FIRST_PAUSE_S
        while True:
            async with turn:
                if one.first_at is None:
                    one.first_at = time.monotonic()
                one.attempts += 1
                if await self._attempt(one.issued):
                    one.accepted_at = time.monotonic()
                    self.accepted += 1
                    return
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(pause_s * 1.5, MOST_PAUSE_S)

    async def _attempt(self, issued):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca_file)
        context.load_cert_chain(*issued.files)
        try:
            return await asyncio.wait_for(self._converse(issued.name, context), ATTEMPT_S)
        except (OSError, ssl.SSLError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            return False

    async def _converse(self, name, context):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname="localhost")
        try:
            writer.write(connect_packet(name))
            answer = await reader.readexactly(4)
            if answer != b"\x20\x02\x00\x00":  # CONNACK, accepted (section 3.2)
                return False
            writer.write(publish_packet(f"devices/{name}/up", b"here"))
            if await reader.readexactly(4) != b"\x40\x02\x00\x01":  # PUBACK
                return False
            writer.write(b"\xe0\x00")  # DISCONNECT
            await writer.drain()
            return True
        finally:
            writer.transport.abort()

    def finish(self):
        """Waits for the end; the crowd's figures."""
        self.join(self.limit_s + 30)
        assert not self.is_alive() and not self.problems, self.problems
        outside = [one for one in self.knockers if one.accepted_at is None]
        assert not outside, f"{len(outside)} never let in, first {outside[0].issued.name} {outside[0].issued.id}"
        took = max(one.accepted_at for one in self.knockers) - self.start_at
        return {"devices": len(self.knockers), "seconds": round(took, 1), "per_s": round(len(self.knockers) / took, 1),
                "attempts": sum(one.attempts for one in self.knockers)}


def check(loop, devices):
    """Each device is one thing with one principal, ACTIVE, with its policy; here and there say the same."""
    wanted = {issued.name: issued.id for issued in devices}
    sql = loop.stack.query
    names = sorted(wanted)
    there = sql("SELECT t.name, p.certificate_id, c.status, a.policy FROM iotcore.thing t"
                " LEFT JOIN iotcore.thing_principal p ON p.thing = t.name"
                " LEFT JOIN iotcore.certificate c ON c.certificate_id = p.certificate_id"
                " LEFT JOIN iotcore.policy_attachment a ON a.target = 'cert/' || c.certificate_id"
                " WHERE t.name = ANY (%s) ORDER BY t.name", names)
    assert there == [(name, wanted[name], "ACTIVE", "jitrca-device") for name in names], \
        ([row for row in there if (row[1], row[2], row[3]) != (wanted[row[0]], "ACTIVE", "jitrca-device")][:5],
         sorted(set(names) - {row[0] for row in there})[:5])
    assert sql("SELECT count(*) FROM iotcore.certificate WHERE status <> 'ACTIVE' AND certificate_id = ANY (%s)",
               list(wanted.values())) == [(0,)]
    here = dict(sql("SELECT device_id, encode(sha256, 'hex') FROM jitrca.iot_certificate WHERE status = 'ACTIVE'"
                    " AND activated_at IS NOT NULL AND device_id = ANY (%s)", names))
    assert here == wanted
    assert sql("SELECT count(*) FROM jitrca.iot_certificate WHERE device_id = ANY (%s)", names) == [(len(names),)]
    assert sql("SELECT count(*) FROM jitrca.iot_device WHERE state = 'active' AND device_id = ANY (%s)",
               names) == [(len(names),)]
    assert loop.outbox() == []
