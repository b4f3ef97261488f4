"""The section "size": what a certificate, a look-up, a search and a start cost when much was issued before.

The rows of one real issuance are repeated by SQL in all tables that it wrote to, each with names, keys, serials and
dates of its own, spread over the expiry months of a year. Neither the outbox (it is worked off) nor revocations
(the section "crl") are among them.
"""
import random
import shutil
import tempfile
import time

from harness import client

from measure import Line, Meter, quantiles

OLD = "'old-' || lpad(i::text, 9, '0')"
TEN_MILLION_GB = 40
SERIAL = ("'\\x41'::bytea || substr(d, 1, 1) || substr(int4send(m), 3) || substr(d, 2, 12)")
# (table, which of its rows is repeated, what is different each time). Columns that are not named are as they were.
TABLES = (
    ("device", "device_id = %(device)s", {"device_id": OLD, "created_at": "n.at", "updated_at": "n.at"}),
    ("device_slot", "device_id = %(device)s", {"device_id": OLD, "current_serial": SERIAL}),
    ("key_claim", "identity = %(device)s", {"spki_sha256": "sha256('k' || d)", "identity": OLD, "serial": SERIAL}),
    ("idempotency", "key = %(device)s", {"key": OLD, "request_hash": "sha256('r' || d)", "serial": SERIAL, "created_at": "n.at"}),
    ("manifest_line", "device_id = %(device)s", {"device_id": OLD, "serial": SERIAL, "used_at": "n.at"}),
    ("certificate", "device_id = %(device)s", {
        "expiry_month": "m", "serial": SERIAL, "device_id": OLD, "subject": f"'CN=' || {OLD}", "not_before": "n.at",
        "not_after": "n.at + interval '365 days'", "issued_at": "n.at", "sha256": "sha256('s' || d)",
        "spki_sha256": "sha256('k' || d)", "status_at": "n.at"}),
    ("audit_record", "(lane, seq) = (%(lane)s, %(seq)s)", {
        "seq": "%(last)s + (i - %(first)s) / 16 + 1", "at": "n.at", "hash": "d"}),
    ("audit_item", "(lane, seq, idx) = (%(lane)s, %(seq)s, %(idx)s)", {
        "seq": "%(last)s + (i - %(first)s) / 16 + 1", "idx": "(i - %(first)s) %% 16", "object": OLD}),
)
# Each number with its digest, its time within the last year, and the month in which it expires.
NUMBERS = """FROM (SELECT i, sha256(int8send(i)) AS d, at, (extract(year FROM e) * 12 + extract(month FROM e) - 1)::int AS m
 FROM generate_series(%(first)s::bigint, %(end)s - 1) AS i,
 LATERAL (SELECT now() - interval '360 days' * ((%(end)s - i)::float8 / (%(end)s - %(first)s)) AS at) AS a,
 LATERAL (SELECT (at + interval '365 days') AT TIME ZONE 'UTC' AS e) AS b) AS n"""


def columns(cursor, table):
    cursor.execute("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
                   " AND attgenerated = '' AND attidentity <> 'a' ORDER BY attnum", (f"jitrca.{table}",))
    return [row[0] for row in cursor.fetchall()]


def repeat_rows(cursor, table, where, changes, values):
    names = columns(cursor, table)
    picked = ", ".join(f"({changes[name]})" if name in changes else f"t.{name}" for name in names)
    every = " WHERE (i - %(first)s) %% 16 = 0" if table == "audit_record" else ""
    cursor.execute(f"INSERT INTO jitrca.{table} ({', '.join(names)}) SELECT {picked} {NUMBERS},"
                   f" (SELECT * FROM jitrca.{table} WHERE {where} LIMIT 1) AS t{every}", values)
    assert cursor.rowcount > 0, f"no row of {table} to repeat"


def take_indexes(cursor):
    """Drops what no constraint needs; gives the statements that make it again."""
    cursor.execute("SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i"
                   " JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
                   " WHERE n.nspname = 'jitrca' AND c.relname = ANY (%s) AND NOT EXISTS"
                   " (SELECT FROM pg_constraint o WHERE o.conindid = i.indexrelid)", ([table for table, *_ in TABLES],))
    found = cursor.fetchall()
    for name, _ in found:
        cursor.execute(f"DROP INDEX {name}")
    return [definition.replace(" ON ONLY ", " ON ") for _, definition in found]


def fill(stack, device, first, end):
    """Certificates number first … end - 1, as if they had been issued within the last year. The server is down."""
    with stack.db() as connection:
        cursor = connection.cursor()
        for setting in ("session_replication_role = replica", "maintenance_work_mem = '1GB'", "synchronous_commit = off"):
            cursor.execute(f"SET {setting}")
        cursor.execute("SELECT jitrca.ensure_month((extract(year FROM e) * 12 + extract(month FROM e) - 1)::int)"
                       " FROM generate_series(now(), now() + interval '400 days', interval '20 days') AS e")
        cursor.execute("SELECT lane, seq, idx FROM jitrca.audit_item WHERE object LIKE %s OR body LIKE %s LIMIT 1",
                       (f"%{device}%", f"%{device}%".encode()))
        lane, seq, idx = cursor.fetchone()
        cursor.execute("SELECT seq FROM jitrca.audit_lane WHERE lane = %s", (lane,))
        values = {"device": device, "lane": lane, "seq": seq, "idx": idx, "last": cursor.fetchone()[0], "first": first, "end": end}
        again = take_indexes(cursor)
        for table, where, changes in TABLES:
            repeat_rows(cursor, table, where, changes, values)
        for definition in again:
            cursor.execute(definition)
        cursor.execute("SELECT jitrca.no_duplicates(inhrelid::regclass) FROM pg_inherits"
                       " WHERE inhparent = 'jitrca.certificate'::regclass")
        cursor.execute("SELECT jitrca.no_duplicates('jitrca.device'), jitrca.no_duplicates('jitrca.audit_item')")
        cursor.execute("UPDATE jitrca.audit_lane l SET seq = r.seq, head = r.hash FROM (SELECT seq, hash FROM jitrca.audit_record"
                       " WHERE lane = %s ORDER BY seq DESC LIMIT 1) AS r WHERE l.lane = %s", (lane, lane))
        for table, *_ in TABLES:
            cursor.execute(f"VACUUM (ANALYZE) jitrca.{table}")
        cursor.execute("CHECKPOINT")


def grow(bench, stack, device, first, end):
    bench.say(f"filling in certificates up to {end}")
    stack.stop()
    cluster = stack.cluster
    begun = time.monotonic()
    for fsync in ("off", "on"):
        cluster.fsync = fsync
        cluster.restart()
        if fsync == "off":
            with stack.db() as connection:
                connection.cursor().execute("ALTER SYSTEM SET max_wal_size = '8GB'")
                connection.cursor().execute("SELECT pg_reload_conf()")
            fill(stack, device, first, end)
            with stack.db() as connection:
                connection.cursor().execute("ALTER SYSTEM RESET max_wal_size")
    stack.start()
    counted = stack.query("SELECT sum(reltuples) FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid"
                          " WHERE i.inhparent = 'jitrca.certificate'::regclass")[0][0]
    bench.figure(f"filling up to {end}", {"seconds": round(time.monotonic() - begun, 1), "rows": counted})


def reads(bench, stack, end):
    """Look-ups by id and searches by device, each of another certificate."""
    count = bench.pick(10, 300)
    ids = [row[0] for row in stack.query("SELECT encode(sha256, 'hex') FROM jitrca.certificate WHERE device_id = ANY (%s)",
                                         [f"old-{random.randrange(end):09d}" for _ in range(count)])]
    figures = {}
    with client.admin(stack) as boss:
        for what, paths in (("look-up", [f"/v1/certificates/{one}" for one in ids]),
                            ("search", [f"/v1/certificates?device_id=old-{random.randrange(end):09d}" for _ in range(count)]),
                            ("search by station, newest", ["/v1/certificates?station=line&limit=50"] * bench.pick(3, 50))):
            took = []
            boss.get(paths[0])
            with Meter(stack) as meter:
                for path in paths:
                    start = time.monotonic()
                    assert boss.get(path).status_code == 200, path
                    took.append(time.monotonic() - start)
            figures[what] = {**quantiles(took), **meter.per(len(paths))}
    return figures


def started(bench, stack):
    def once():
        stack.stop()
        begun = time.monotonic()
        stack.start()
        return {"seconds": time.monotonic() - begun}
    return bench.repeat("start", once)


def at_size(bench, stack, line, end):
    line.issue(bench.pick(20, 3000), 32)  # pages are read, plans are made
    issued = bench.repeat(f"issuing onto {end} certificates", lambda: line.issue(bench.pick(40, 4000), 32))
    figures = {"issue": issued, "reads": reads(bench, stack, end), "start": started(bench, stack)}
    cost = issued["server_us"]["median"] + issued["postgresql_us"]["median"]
    searches = ", ".join(f"{what} p50 {one['p50_ms']} ms" for what, one in figures["reads"].items())
    bench.figure(f"with {end} certificates", figures,
                 f"CPU us per certificate: jitrca {issued['server_us']['median']:.0f}, PostgreSQL {issued['postgresql_us']['median']:.0f}; {searches}; start {figures['start']['seconds']['median']:.2f} s")
    return cost, figures["start"]["seconds"]["median"]


def measure(bench, few, many):
    units = (bench.pick(40, 4000) * bench.runs + bench.pick(20, 3000)) * 2 + 1
    with bench.stack() as stack:
        line = Line(bench, stack, units)
        line.issue(1, 1)
        device = f"{line.PREFIX}-{0:08d}"
        grow(bench, stack, device, 0, few)
        small, _ = at_size(bench, stack, line, few)
        grow(bench, stack, device, few, many)
        large, start = at_size(bench, stack, line, many)
    bench.must(f"cost per certificate (CPU) with {many} over that with {few}", large / small, at_most=1.15)
    bench.must(f"from start to ready with {many} certificates", start, at_most=2, unit=" s")


def bench_size(bench):
    measure(bench, *bench.pick((200, 1000), (10_000, 1_000_000)))


def bench_ten_million(bench):
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    if free < TEN_MILLION_GB:
        bench.skip("cost per certificate (CPU) with 10000000 over that with 10000", "<= 1.15",
                   f"{TEN_MILLION_GB} GB wanted in {tempfile.gettempdir()}, {free:.0f} GB free")
        return
    measure(bench, *bench.pick((200, 2000), (10_000, 10_000_000)))
