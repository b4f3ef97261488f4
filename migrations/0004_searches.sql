-- An index for each search, months made ahead, and three gaps closed.

-- Searches by the end of validity. All go by profile, because it is the profile that says how long before
-- its end a certificate is late, and profiles are few: who asks for all looks into each.
DROP INDEX jitrca.certificate_not_after;
CREATE INDEX certificate_live ON jitrca.certificate (profile, not_after, serial) WHERE status = 'active';
CREATE INDEX certificate_ended ON jitrca.certificate (profile, status, not_after, serial)
	WHERE status <> 'active';
-- Whose successor was asked for and is not confirmed.
CREATE INDEX certificate_unconfirmed ON jitrca.certificate (not_after, serial)
	WHERE status = 'active' AND of_device AND successor_serial IS NOT NULL;
-- The same for what a station has. Who issues writes nothing into it.
CREATE INDEX certificate_ended_principal ON jitrca.certificate (principal_id, status, not_after, serial)
	WHERE status <> 'active';
-- What was issued on a work order, whatever else its station issued meanwhile.
CREATE INDEX certificate_manifest ON jitrca.certificate (manifest_id, issued_at, serial)
	WHERE manifest_id IS NOT NULL;
CREATE INDEX device_not_active_type ON jitrca.device (thing_type, status, device_id) WHERE status <> 'active';
CREATE INDEX revocation_expired ON jitrca.revocation (not_after);

-- Makes the partition of one month. PARTITION OF would take the whole table from everybody who reads or
-- issues; a table that is attached does not. TRUNCATE is refused on a partition of its own, too.
CREATE OR REPLACE FUNCTION jitrca.ensure_month(month integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	name text := format('certificate_%s', month);
BEGIN
	IF month < 0 OR month > 65535 THEN
		RAISE EXCEPTION 'expiry month % is out of range', month USING ERRCODE = '22003';
	END IF;
	IF to_regclass('jitrca.' || name) IS NULL THEN
		PERFORM pg_advisory_xact_lock(1784, -1);
		-- Looking again would not do: that the table is missing is cached, and waiting for an advisory
		-- lock does not empty the cache.
		BEGIN
			EXECUTE format('CREATE TABLE jitrca.%I (LIKE jitrca.certificate INCLUDING ALL)', name);
			EXECUTE format('CREATE TRIGGER certificate_whole BEFORE TRUNCATE ON jitrca.%I'
				' EXECUTE FUNCTION jitrca.record_guard()', name);
			EXECUTE format('ALTER TABLE jitrca.certificate ATTACH PARTITION jitrca.%I'
				' FOR VALUES FROM (%s) TO (%s)', name, month, month + 1);
		EXCEPTION WHEN duplicate_table THEN
			NULL; -- made while we waited
		END;
	END IF;
END $$;

DO $$
DECLARE
	name text;
BEGIN
	FOR name IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
	    WHERE i.inhparent = 'jitrca.certificate'::regclass LOOP
		EXECUTE format('CREATE TRIGGER certificate_whole BEFORE TRUNCATE ON jitrca.%I'
			' EXECUTE FUNCTION jitrca.record_guard()', name);
	END LOOP;
END $$;

-- Nothing that is revoked comes to life by being recorded. Once a statement, so that a batch pays once;
-- the scalar query keeps it a look-up in revocation_pkey for each row.
CREATE FUNCTION jitrca.certificate_born() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM born b WHERE b.status NOT IN ('revoked', 'held')
	    AND (SELECT true FROM jitrca.revocation r
	    WHERE r.issuer_id = b.issuer_id AND r.serial = b.serial)) THEN
		RAISE EXCEPTION 'a revoked certificate is not recorded as valid' USING ERRCODE = '23514';
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER certificate_born AFTER INSERT ON jitrca.certificate REFERENCING NEW TABLE AS born
	FOR EACH STATEMENT EXECUTE FUNCTION jitrca.certificate_born();

-- A bulk revocation looks twice: what was under way when it was asked for may be recorded behind the first
-- look's back. again_from is where the second look begins, among what was issued.
ALTER TABLE jitrca.bulk_revocation
	ADD COLUMN pass smallint NOT NULL DEFAULT 1 CHECK (pass IN (1, 2)),
	ADD COLUMN again_from timestamptz NOT NULL DEFAULT now() - interval '1 hour';
