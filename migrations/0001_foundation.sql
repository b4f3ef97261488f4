-- The foundation: who may ask, what was allowed, what was signed, what was revoked, and the proof.
--
-- Texts that are keys collate "C": they are compared as bytes, and their indexes are smaller.
-- An expiry month is year * 12 + (month - 1); it stands in octets 2-3 of every serial.

CREATE FUNCTION jitrca.serial_month(serial bytea) RETURNS integer
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN get_byte(serial, 2) * 256 + get_byte(serial, 3);

CREATE FUNCTION jitrca.serial_shard(serial bytea) RETURNS smallint
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN get_byte(serial, 1)::smallint;

-- One running server. Alive exactly while its session holds the advisory lock (1784, instance_id).
CREATE TABLE jitrca.instance (
	instance_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	host text NOT NULL,
	started_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE jitrca.issuer (
	issuer_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	ca_id text COLLATE "C" NOT NULL UNIQUE CHECK (ca_id ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
	kind text NOT NULL CHECK (kind IN ('root', 'issuing')),
	status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'retired')),
	subject text NOT NULL,
	certificate bytea NOT NULL,
	chain bytea[] NOT NULL, -- its own issuers, nearest first, the root last
	sha256 bytea NOT NULL UNIQUE CHECK (length(sha256) = 32),
	not_before timestamptz NOT NULL,
	not_after timestamptz NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now()
);

-- Whoever authenticates, but for devices: administrators, operators, auditors, stations.
-- An id is never used again, so the audit log stays unambiguous: principals are disabled, not deleted.
CREATE TABLE jitrca.principal (
	principal_id text COLLATE "C" PRIMARY KEY CHECK (principal_id ~ '^[A-Za-z0-9:_-]{1,64}$'),
	role text NOT NULL CHECK (role IN ('admin', 'operator', 'auditor', 'station')),
	description text NOT NULL DEFAULT '' CHECK (length(description) <= 256),
	created_at timestamptz NOT NULL DEFAULT now(),
	created_by text COLLATE "C" NOT NULL,
	disabled_at timestamptz
);
CREATE INDEX principal_role ON jitrca.principal (role, principal_id);

-- What a station has beside its principal. The bucket is shared by all servers.
CREATE TABLE jitrca.station (
	principal_id text COLLATE "C" PRIMARY KEY REFERENCES jitrca.principal,
	profiles text[] COLLATE "C" NOT NULL DEFAULT '{device}',
	rate_per_minute integer NOT NULL CHECK (rate_per_minute BETWEEN 1 AND 10000000),
	bucket double precision NOT NULL,
	bucket_at timestamptz NOT NULL DEFAULT now()
);

-- Bearer tokens: only their BLAKE2b-256 is kept.
CREATE TABLE jitrca.token (
	token_id text COLLATE "C" PRIMARY KEY CHECK (token_id ~ '^[0-9a-f]{16}$'),
	principal_id text COLLATE "C" NOT NULL REFERENCES jitrca.principal,
	hash bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
	description text NOT NULL DEFAULT '' CHECK (length(description) <= 256),
	created_at timestamptz NOT NULL DEFAULT now(),
	created_by text COLLATE "C" NOT NULL,
	expires_at timestamptz NOT NULL,
	revoked_at timestamptz
);
CREATE INDEX token_principal ON jitrca.token (principal_id, token_id);

-- A work order. used counts what was admitted and not given back.
CREATE TABLE jitrca.manifest (
	manifest_id text COLLATE "C" PRIMARY KEY CHECK (manifest_id ~ '^[A-Za-z0-9:_-]{1,64}$'),
	station_id text COLLATE "C" NOT NULL REFERENCES jitrca.station,
	profile text COLLATE "C" NOT NULL,
	quantity bigint NOT NULL CHECK (quantity > 0),
	used bigint NOT NULL DEFAULT 0 CHECK (used BETWEEN 0 AND quantity),
	line_count bigint NOT NULL DEFAULT 0,
	allow_replace boolean NOT NULL DEFAULT false,
	not_before timestamptz NOT NULL,
	not_after timestamptz NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	created_by text COLLATE "C" NOT NULL,
	closed_at timestamptz,
	CHECK (not_before < not_after)
);
CREATE INDEX manifest_station ON jitrca.manifest (station_id, manifest_id);

-- The allow-list: one line a device id. issuer_id and serial say what was last issued on the line.
-- Millions come at once, so two checks are made once an upload and not once a line: the manifest is there
-- (and locked; none is ever deleted), and what an id may be (who reads the upload; no other id could ask).
CREATE TABLE jitrca.manifest_line (
	device_id text COLLATE "C" NOT NULL CHECK (octet_length(device_id) BETWEEN 1 AND 64),
	manifest_id text COLLATE "C" NOT NULL, -- of jitrca.manifest
	issuer_id integer,
	serial bytea CHECK (length(serial) = 16),
	used_at timestamptz,
	PRIMARY KEY (device_id, manifest_id)
);
CREATE INDEX manifest_line_export ON jitrca.manifest_line (manifest_id, device_id);

CREATE TABLE jitrca.device (
	device_id text COLLATE "C" PRIMARY KEY CHECK (device_id ~ '^[A-Za-z0-9:_-]{1,64}$'),
	status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'quarantined', 'decommissioned')),
	thing_type text COLLATE "C" NOT NULL DEFAULT '',
	attributes text NOT NULL DEFAULT '{}', -- a JSON object of strings, canonical
	version bigint NOT NULL DEFAULT 1,     -- grows with every change; the outbox names it
	reason text NOT NULL DEFAULT '',       -- why it is quarantined or decommissioned
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX device_created ON jitrca.device (created_at, device_id);
CREATE INDEX device_not_active ON jitrca.device (status, device_id) WHERE status <> 'active';
CREATE INDEX device_thing_type ON jitrca.device (thing_type, device_id);

-- The live certificates of a device: at most one current and one successor, and at most one issuance
-- under way (claim). Not partitioned by time: it is what makes "one live certificate" true.
CREATE TABLE jitrca.device_slot (
	device_id text COLLATE "C" PRIMARY KEY,
	current_issuer integer,
	current_serial bytea CHECK (length(current_serial) = 16),
	successor_issuer integer,
	successor_serial bytea CHECK (length(successor_serial) = 16),
	claim_issuer integer,
	claim_serial bytea CHECK (length(claim_serial) = 16)
) WITH (fillfactor = 60); -- each row is updated once, soon: room for it on its own page

-- One public key, one identity. serial is the last certificate for it (NULL while the first is under way).
CREATE TABLE jitrca.key_claim (
	spki_sha256 bytea PRIMARY KEY CHECK (length(spki_sha256) = 32),
	identity text COLLATE "C" NOT NULL,
	profile text COLLATE "C" NOT NULL,
	issuer_id integer,
	serial bytea CHECK (length(serial) = 16),
	claim_issuer integer,
	claim_serial bytea CHECK (length(claim_serial) = 16),
	blocked_at timestamptz -- compromised: never certified again
) WITH (fillfactor = 60);
CREATE INDEX key_claim_blocked ON jitrca.key_claim (blocked_at) WHERE blocked_at IS NOT NULL;

CREATE TABLE jitrca.idempotency (
	principal_id text COLLATE "C" NOT NULL,
	key text COLLATE "C" NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
	request_hash bytea NOT NULL CHECK (length(request_hash) = 32),
	issuer_id integer NOT NULL,
	serial bytea NOT NULL CHECK (length(serial) = 16),
	created_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (principal_id, key)
);
CREATE INDEX idempotency_retention ON jitrca.idempotency (created_at);

-- All that the key may have signed and that is not yet recorded. A row is the right to record; who
-- deletes it closes it: Record (with the certificate) or the reaper (with a revocation).
CREATE TABLE jitrca.intent (
	issuer_id integer NOT NULL,
	serial bytea NOT NULL CHECK (length(serial) = 16),
	instance_id integer NOT NULL,
	not_after timestamptz NOT NULL,
	principal_id text COLLATE "C" NOT NULL,
	idempotency_key text COLLATE "C",
	identity text COLLATE "C" NOT NULL,
	profile text COLLATE "C" NOT NULL,
	spki_sha256 bytea NOT NULL,
	manifest_id text COLLATE "C",
	manifest_charged boolean NOT NULL DEFAULT false, -- false: rework of a line that was paid for
	created_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (issuer_id, serial)
);
CREATE INDEX intent_instance ON jitrca.intent (instance_id);

CREATE TABLE jitrca.certificate (
	expiry_month integer NOT NULL,
	issuer_id integer NOT NULL REFERENCES jitrca.issuer,
	serial bytea NOT NULL CHECK (length(serial) = 16 AND jitrca.serial_month(serial) = expiry_month),
	status text NOT NULL CHECK (status IN
		('active', 'pending_confirmation', 'superseded', 'held', 'revoked')),
	status_before_hold text CHECK (status_before_hold IN ('active', 'pending_confirmation')),
	profile text COLLATE "C" NOT NULL,
	device_id text COLLATE "C" NOT NULL, -- the identity: of a device, or of a principal or server
	of_device boolean NOT NULL DEFAULT true, -- device_id names a device: it lives in device_slot
	subject text NOT NULL,
	principal_id text COLLATE "C" NOT NULL, -- who asked
	manifest_id text COLLATE "C",
	not_before timestamptz NOT NULL,
	not_after timestamptz NOT NULL,
	issued_at timestamptz NOT NULL,
	sha256 bytea NOT NULL CHECK (length(sha256) = 32),
	spki_sha256 bytea NOT NULL CHECK (length(spki_sha256) = 32),
	predecessor_issuer integer,
	predecessor_serial bytea CHECK (length(predecessor_serial) = 16),
	successor_issuer integer,
	successor_serial bytea CHECK (length(successor_serial) = 16),
	status_at timestamptz NOT NULL, -- when status last changed
	der bytea NOT NULL,
	PRIMARY KEY (expiry_month, issuer_id, serial)
) PARTITION BY RANGE (expiry_month);
CREATE INDEX certificate_sha256 ON jitrca.certificate (sha256);
CREATE INDEX certificate_issued ON jitrca.certificate (issued_at, serial);
CREATE INDEX certificate_device ON jitrca.certificate (device_id, issued_at, serial);
CREATE INDEX certificate_principal ON jitrca.certificate (principal_id, issued_at, serial);
CREATE INDEX certificate_profile ON jitrca.certificate (profile, issued_at, serial);
CREATE INDEX certificate_not_after ON jitrca.certificate (not_after, serial);
CREATE INDEX certificate_not_active ON jitrca.certificate (status, issued_at, serial)
	WHERE status <> 'active';

-- Makes the partition of one month. Called before Admit for a month that this server has not seen.
CREATE FUNCTION jitrca.ensure_month(month integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF month < 0 OR month > 65535 THEN
		RAISE EXCEPTION 'expiry month % is out of range', month USING ERRCODE = '22003';
	END IF;
	IF to_regclass(format('jitrca.certificate_%s', month)) IS NULL THEN
		PERFORM pg_advisory_xact_lock(1784, -1);
		EXECUTE format('CREATE TABLE IF NOT EXISTS jitrca.certificate_%s PARTITION OF'
			' jitrca.certificate FOR VALUES FROM (%s) TO (%s)', month, month, month + 1);
	END IF;
END $$;

-- What may become of a certificate. Revocation is final; only a hold can be lifted; what was signed
-- does not change.
CREATE FUNCTION jitrca.certificate_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF (OLD.expiry_month, OLD.issuer_id, OLD.serial, OLD.sha256, OLD.der, OLD.device_id, OLD.of_device,
	    OLD.profile, OLD.spki_sha256, OLD.not_before, OLD.not_after)
	   IS DISTINCT FROM
	   (NEW.expiry_month, NEW.issuer_id, NEW.serial, NEW.sha256, NEW.der, NEW.device_id, NEW.of_device,
	    NEW.profile, NEW.spki_sha256, NEW.not_before, NEW.not_after) THEN
		RAISE EXCEPTION 'an issued certificate does not change' USING ERRCODE = '23514';
	END IF;
	IF OLD.status <> NEW.status AND NOT (
	    (OLD.status = 'active' AND NEW.status IN ('superseded', 'held', 'revoked')) OR
	    (OLD.status = 'pending_confirmation' AND NEW.status IN ('active', 'held', 'revoked')) OR
	    (OLD.status = 'superseded' AND NEW.status = 'revoked') OR
	    (OLD.status = 'held' AND NEW.status = 'revoked') OR
	    (OLD.status = 'held' AND NEW.status = OLD.status_before_hold)) THEN
		RAISE EXCEPTION 'a certificate cannot go from % to %', OLD.status, NEW.status
			USING ERRCODE = '23514';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER certificate_guard BEFORE UPDATE ON jitrca.certificate
	FOR EACH ROW EXECUTE FUNCTION jitrca.certificate_guard();

-- What CRLs are made of: narrow, and without need of a certificate row (an orphaned intent has none).
CREATE TABLE jitrca.revocation (
	issuer_id integer NOT NULL,
	serial bytea NOT NULL CHECK (length(serial) = 16),
	reason smallint NOT NULL CHECK (reason IN (0, 1, 2, 3, 4, 5, 6, 9, 10)), -- RFC 5280 5.3.1
	revoked_at timestamptz NOT NULL,
	not_after timestamptz NOT NULL,
	PRIMARY KEY (issuer_id, serial)
);
CREATE INDEX revocation_shard ON jitrca.revocation (issuer_id, jitrca.serial_shard(serial), serial)
	INCLUDE (reason, revoked_at, not_after);

CREATE FUNCTION jitrca.revocation_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'DELETE' THEN
		IF OLD.reason <> 6 AND OLD.not_after > now() - interval '30 days' THEN
			RAISE EXCEPTION 'a revocation is final' USING ERRCODE = '23514';
		END IF;
		RETURN OLD;
	END IF;
	IF (OLD.issuer_id, OLD.serial, OLD.revoked_at, OLD.not_after)
	   IS DISTINCT FROM (NEW.issuer_id, NEW.serial, NEW.revoked_at, NEW.not_after)
	   OR (OLD.reason <> NEW.reason AND OLD.reason <> 6) THEN
		RAISE EXCEPTION 'a revocation does not change' USING ERRCODE = '23514';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER revocation_guard BEFORE UPDATE OR DELETE ON jitrca.revocation
	FOR EACH ROW EXECUTE FUNCTION jitrca.revocation_guard();

-- The state of each list of an issuer. scope -1 is the full list, 0-255 a shard. A revoking
-- transaction adds 1 to wanted; what is published answers for the value that it read first.
CREATE TABLE jitrca.crl_scope (
	issuer_id integer NOT NULL REFERENCES jitrca.issuer,
	scope smallint NOT NULL CHECK (scope BETWEEN -1 AND 255),
	last_number bigint NOT NULL DEFAULT 0, -- reserved before the key signs; only grows
	wanted bigint NOT NULL DEFAULT 1,
	published bigint NOT NULL DEFAULT 0,
	next_update timestamptz,               -- of what is published
	PRIMARY KEY (issuer_id, scope)
);
CREATE INDEX crl_scope_due ON jitrca.crl_scope (next_update);

CREATE TABLE jitrca.crl (
	issuer_id integer NOT NULL,
	scope smallint NOT NULL,
	number bigint NOT NULL,
	this_update timestamptz NOT NULL,
	next_update timestamptz NOT NULL,
	entries bigint NOT NULL,
	sha256 bytea NOT NULL,
	published_at timestamptz NOT NULL DEFAULT now(),
	der bytea NOT NULL,
	PRIMARY KEY (issuer_id, scope, number),
	FOREIGN KEY (issuer_id, scope) REFERENCES jitrca.crl_scope
);

CREATE FUNCTION jitrca.crl_scope_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.last_number < OLD.last_number OR NEW.wanted < OLD.wanted OR NEW.published < OLD.published THEN
		RAISE EXCEPTION 'a CRL number only grows' USING ERRCODE = '23514';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER crl_scope_guard BEFORE UPDATE ON jitrca.crl_scope
	FOR EACH ROW EXECUTE FUNCTION jitrca.crl_scope_guard();

-- The audit log: a hash chain per lane. hash = BLAKE2b-256(hash of seq - 1, or 32 zero octets || body).
CREATE TABLE jitrca.audit_lane (
	lane integer PRIMARY KEY,
	seq bigint NOT NULL DEFAULT 0,
	head bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex') CHECK (length(head) = 32)
);

CREATE TABLE jitrca.audit_record (
	lane integer NOT NULL REFERENCES jitrca.audit_lane,
	seq bigint NOT NULL CHECK (seq > 0),
	at timestamptz NOT NULL,
	actor text COLLATE "C" NOT NULL,
	action text COLLATE "C" NOT NULL,
	body bytea NOT NULL, -- JSON, as it was hashed
	hash bytea NOT NULL CHECK (length(hash) = 32),
	PRIMARY KEY (lane, seq)
);
CREATE INDEX audit_record_at ON jitrca.audit_record (at, lane, seq);
CREATE INDEX audit_record_actor ON jitrca.audit_record (actor, at, lane, seq);
CREATE INDEX audit_record_action ON jitrca.audit_record (action, at, lane, seq);

-- The leaves under a record's Merkle root, in order.
CREATE TABLE jitrca.audit_item (
	lane integer NOT NULL,
	seq bigint NOT NULL,
	idx integer NOT NULL,
	object text COLLATE "C" NOT NULL, -- device, certificate, station … that it is about
	body bytea NOT NULL,
	PRIMARY KEY (lane, seq, idx),
	FOREIGN KEY (lane, seq) REFERENCES jitrca.audit_record
);
CREATE INDEX audit_item_object ON jitrca.audit_item (object, lane, seq);

CREATE TABLE jitrca.audit_checkpoint (
	lane integer NOT NULL,
	seq bigint NOT NULL,
	hash bytea NOT NULL,
	at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (lane, seq)
);

CREATE FUNCTION jitrca.audit_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'the audit log is only added to' USING ERRCODE = '23514';
END $$;
CREATE TRIGGER audit_record_guard BEFORE UPDATE OR DELETE ON jitrca.audit_record
	FOR EACH ROW EXECUTE FUNCTION jitrca.audit_guard();
CREATE TRIGGER audit_item_guard BEFORE UPDATE OR DELETE ON jitrca.audit_item
	FOR EACH ROW EXECUTE FUNCTION jitrca.audit_guard();
CREATE TRIGGER audit_checkpoint_guard BEFORE UPDATE OR DELETE ON jitrca.audit_checkpoint
	FOR EACH ROW EXECUTE FUNCTION jitrca.audit_guard();
CREATE TRIGGER audit_record_whole BEFORE TRUNCATE ON jitrca.audit_record
	EXECUTE FUNCTION jitrca.audit_guard();
CREATE TRIGGER audit_item_whole BEFORE TRUNCATE ON jitrca.audit_item
	EXECUTE FUNCTION jitrca.audit_guard();
CREATE TRIGGER audit_checkpoint_whole BEFORE TRUNCATE ON jitrca.audit_checkpoint
	EXECUTE FUNCTION jitrca.audit_guard();

-- What was issued or revoked stays on record: retention drops whole partitions.
CREATE FUNCTION jitrca.record_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'what was issued or revoked stays on record' USING ERRCODE = '23514';
END $$;
CREATE TRIGGER certificate_stays BEFORE DELETE ON jitrca.certificate
	FOR EACH ROW EXECUTE FUNCTION jitrca.record_guard();
CREATE TRIGGER certificate_whole BEFORE TRUNCATE ON jitrca.certificate
	EXECUTE FUNCTION jitrca.record_guard();
CREATE TRIGGER revocation_whole BEFORE TRUNCATE ON jitrca.revocation
	EXECUTE FUNCTION jitrca.record_guard();

-- What must reach IoT Core: a device and the version of it that is wanted there.
CREATE TABLE jitrca.outbox (
	device_id text COLLATE "C" PRIMARY KEY,
	version bigint NOT NULL DEFAULT 1,
	cause text NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now()
);

-- Bulk revocation: a receipt, resumable from its cursor.
CREATE TABLE jitrca.bulk_revocation (
	revocation_id text COLLATE "C" PRIMARY KEY CHECK (revocation_id ~ '^[0-9a-f]{32}$'),
	state text NOT NULL CHECK (state IN ('running', 'done')),
	actor text COLLATE "C" NOT NULL,
	request_id text NOT NULL,
	reason smallint NOT NULL,
	comment text NOT NULL DEFAULT '',
	selector text NOT NULL, -- JSON, as it was asked
	matched bigint NOT NULL,
	revoked bigint NOT NULL DEFAULT 0,
	issued_until timestamptz NOT NULL, -- certificates issued later are not part of it
	cursor_at timestamptz,
	cursor_serial bytea,
	created_at timestamptz NOT NULL DEFAULT now(),
	finished_at timestamptz
);
CREATE INDEX bulk_revocation_running ON jitrca.bulk_revocation (revocation_id) WHERE state = 'running';
