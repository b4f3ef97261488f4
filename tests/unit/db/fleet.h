/*
 * tests/unit/db/fleet.h - a fleet as years of issuing leave it: every device has rotated about a month
 * before the end of each certificate, so most of what has not expired is superseded. Times are spread
 * over three years, ends over more than two dozen months.
 */
#ifndef TESTS_UNIT_DB_FLEET_H
#define TESTS_UNIT_DB_FLEET_H

#include "tests/unit/db/world.h"

UNUSED static void
fleet_people(void)
{
	sql("INSERT INTO jitrca.principal (principal_id, role, created_by)"
	    " SELECT 'st-' || n, 'station', 'x' FROM generate_series(1, 5000) n UNION ALL"
	    " SELECT 'admin-' || n, 'admin', 'x' FROM generate_series(1, 300) n UNION ALL"
	    " SELECT 'z-' || n, 'operator', 'x' FROM generate_series(1, 300) n");
	sql("INSERT INTO jitrca.station (principal_id, rate_per_minute, bucket) SELECT principal_id, 100, 1"
	    " FROM jitrca.principal WHERE principal_id LIKE 'st-%%'");
	sql("INSERT INTO jitrca.token (token_id, principal_id, hash, created_by, expires_at)"
	    " SELECT substr(md5(n::text), 1, 16), 'st-' || 1 + n %% 10, sha256(n::text::bytea), 'x', now()"
	    " FROM generate_series(1, 5000) n");
	sql("INSERT INTO jitrca.manifest (manifest_id, station_id, profile, quantity, not_before,"
	    " not_after, created_by, created_at) SELECT 'm-' || n, 'st-' || 1 + n %% 50, 'device', 100000,"
	    " now(), now() + interval '1 day', 'x', now() - interval '4 years'"
	    " FROM generate_series(1, 5000) n");
	sql("INSERT INTO jitrca.audit_lane SELECT n, 100000 FROM generate_series(1, 3) n");
	sql("INSERT INTO jitrca.audit_record SELECT 1 + n %% 3, n, now() - n * interval '1 second',"
	    " 'st-' || n %% 20, CASE WHEN n %% 500 = 0 THEN 'device.quarantine' ELSE 'certificate.issue'"
	    " END, '\\x00', sha256(n::text::bytea) FROM generate_series(1, 10000) n");
	sql("INSERT INTO jitrca.audit_item SELECT 1 + n %% 3, n, 0, 'device:dev-' || n %% 1000, '\\x00'"
	    " FROM generate_series(1, 10000) n");
}

/* certificates: about so many; a third as many devices. */
UNUSED static void
fleet_certificates(int certificates)
{
	int devices = certificates / 3;

	sql("SELECT jitrca.ensure_month(m) FROM generate_series(%d, %d) m",
		expiry_month(world_now) - 25, expiry_month(world_now) + 13);
	sql("INSERT INTO jitrca.certificate (expiry_month, issuer_id, serial, status, profile, device_id,"
	    " of_device, subject, principal_id, manifest_id, not_before, not_after, issued_at, sha256,"
	    " spki_sha256, status_at, der)"
	    " SELECT jitrca.serial_month(s), CASE WHEN i > now() - interval '9 days' THEN 2 ELSE 1 END, s,"
	    " st, CASE WHEN n %% 997 = 0 THEN 'admin' WHEN n %% 499 = 0 THEN 'short' ELSE 'device' END,"
	    " 'dev-' || n %% %d, n %% 997 <> 0, 'CN=d', 'st-' || 1 + n %% 20,"
	    " CASE WHEN n %% 3 = 0 THEN 'm-' || n %% 50 END, i, e, i, sha256(s), sha256(s), now(), '\\x00'"
	    " FROM (SELECT n, i, e, CASE WHEN n %% 101 = 0 THEN 'revoked' WHEN n %% 1009 = 0 THEN 'held'"
	    " WHEN e < now() + interval '45 days' AND n %% 503 <> 0 THEN 'superseded'"
	    " WHEN n %% 1511 = 0 THEN 'pending_confirmation' ELSE 'active' END AS st,"
	    " ('\\x01' || lpad(to_hex(n %% 256), 2, '0') || lpad(to_hex((extract(year FROM e) * 12 +"
	    " extract(month FROM e) - 1)::int), 4, '0') || substr(md5(n::text), 1, 24))::bytea AS s"
	    " FROM (SELECT n, i, i + interval '365 days' AS e FROM (SELECT n, date_trunc('second',"
	    " now() AT TIME ZONE 'UTC' - interval '1050 days' + (n %% %d) * interval '%d seconds' +"
	    " (n / %d) * interval '330 days') AS i FROM generate_series(0, %d) n) a WHERE i < now()) b) c",
		devices, devices, 348 * 86400 / devices, devices, certificates * 7 / 6);
	sql("UPDATE jitrca.issuer SET not_before = now() - interval '9 days' WHERE ca_id = 'ca2'");
	sql("INSERT INTO jitrca.revocation SELECT issuer_id, serial, CASE status WHEN 'held' THEN 6 ELSE 1"
	    " END, now(), not_after FROM jitrca.certificate WHERE status IN ('revoked', 'held')");
	sql("INSERT INTO jitrca.device (device_id, thing_type, status) SELECT 'dev-' || n, 't-' || n %% 10,"
	    " CASE WHEN n %% 15 = 0 THEN 'decommissioned' WHEN n %% 100 = 1 THEN 'quarantined'"
	    " ELSE 'active' END FROM generate_series(0, %d) n", devices - 1);
	sql("INSERT INTO jitrca.device_slot (device_id, current_issuer, current_serial)"
	    " SELECT DISTINCT ON (device_id) device_id, issuer_id, serial FROM jitrca.certificate"
	    " WHERE status = 'active' AND of_device ORDER BY device_id, issued_at DESC");
	sql("ANALYZE");
}

#endif
