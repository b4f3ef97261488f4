-- IoT Core: what it last said, what it has yet to be told, and what was odd about it.
--
-- A target is one account and Region, or one local IoT Core, under the name that the configuration
-- gives it. What must reach IoT Core stands in jitrca.outbox (0001), one row a subject.

-- Our CAs in IoT Core. state is what we last brought about or read back there.
CREATE TABLE jitrca.iot_ca (
	target text COLLATE "C" NOT NULL CHECK (target ~ '^[a-z0-9][a-z0-9-]{0,31}$'),
	issuer_id integer NOT NULL REFERENCES jitrca.issuer,
	account text COLLATE "C" NOT NULL CHECK (account ~ '^[0-9]{12}$'),
	region text COLLATE "C" NOT NULL,
	ca_certificate_id text COLLATE "C" NOT NULL CHECK (ca_certificate_id ~ '^[0-9a-f]{64}$'),
	mode text NOT NULL CHECK (mode IN ('DEFAULT', 'SNI_ONLY')),
	status text NOT NULL CHECK (status IN ('ACTIVE', 'INACTIVE', 'DELETED')),
	auto_registration boolean NOT NULL,
	registered_at timestamptz NOT NULL DEFAULT now(),
	observed_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (target, issuer_id)
);

-- A certificate as IoT Core last showed it. serial NULL: none of ours, though its issuer is.
CREATE TABLE jitrca.iot_certificate (
	target text COLLATE "C" NOT NULL,
	sha256 bytea NOT NULL CHECK (length(sha256) = 32),
	issuer_id integer,
	serial bytea CHECK (length(serial) = 16),
	device_id text COLLATE "C",
	status text NOT NULL CHECK (status IN
		('ACTIVE', 'INACTIVE', 'REVOKED', 'PENDING_TRANSFER', 'PENDING_ACTIVATION', 'DELETED')),
	first_seen_at timestamptz NOT NULL DEFAULT now(), -- its first event, or our own registration
	event_at timestamptz,                             -- the latest event
	activated_at timestamptz,
	observed_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (target, sha256)
);
CREATE INDEX iot_certificate_device ON jitrca.iot_certificate (device_id, target);
CREATE INDEX iot_certificate_serial ON jitrca.iot_certificate (issuer_id, serial);

-- A device as the worker last left it: what was applied, for receipts and for drift.
CREATE TABLE jitrca.iot_device (
	target text COLLATE "C" NOT NULL,
	device_id text COLLATE "C" NOT NULL,
	version bigint NOT NULL, -- of the device, when the wanted state was computed
	state text NOT NULL CHECK (state IN ('active', 'quarantined', 'absent')),
	applied_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (target, device_id)
);

-- The outbox learns to be worked off: a lease a row, the next attempt, and a grave that is not a loss.
-- device_id of a certificate that no device of ours has is 'certificate/' and its id: no device's name
-- holds a slash. Revocations go first.
ALTER TABLE jitrca.outbox
	ADD COLUMN priority smallint NOT NULL DEFAULT 1, -- 0: takes something away; 1: gives; 2: upkeep
	ADD COLUMN attempts integer NOT NULL DEFAULT 0,
	ADD COLUMN due_at timestamptz NOT NULL DEFAULT now(),
	ADD COLUMN lease bigint,               -- who has it; a number drawn from outbox_lease
	ADD COLUMN lease_until timestamptz,
	ADD COLUMN failed_at timestamptz,      -- a dead letter: waits for `retry`
	ADD COLUMN error_code text COLLATE "C" NOT NULL DEFAULT '',
	ADD COLUMN error_text text NOT NULL DEFAULT '';
CREATE SEQUENCE jitrca.outbox_lease;
CREATE INDEX outbox_due ON jitrca.outbox (priority, due_at, device_id) WHERE failed_at IS NULL;
CREATE INDEX outbox_failed ON jitrca.outbox (failed_at, device_id) WHERE failed_at IS NOT NULL;

-- Token buckets of IoT Core's quotas, shared by all servers.
CREATE TABLE jitrca.iot_quota (
	target text COLLATE "C" NOT NULL,
	operation text COLLATE "C" NOT NULL,
	bucket double precision NOT NULL,
	bucket_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (target, operation)
) WITH (fillfactor = 50);

-- How far a walk over IoT Core has come: sweep (newest first down to the mark) and reconcile (all).
CREATE TABLE jitrca.iot_walk (
	target text COLLATE "C" NOT NULL,
	issuer_id integer NOT NULL,
	kind text NOT NULL CHECK (kind IN ('sweep', 'reconcile')),
	cursor text NOT NULL DEFAULT '',    -- of IoT Core's; empty: at the beginning
	mark timestamptz,                   -- sweep: all that is older has been seen
	repair boolean NOT NULL DEFAULT false,
	seen bigint NOT NULL DEFAULT 0,
	drift text NOT NULL DEFAULT '{}',   -- JSON: count by kind
	started_at timestamptz,
	finished_at timestamptz,
	PRIMARY KEY (target, issuer_id, kind)
);

-- What is odd and somebody should know: refused registrations, strangers, drift.
CREATE TABLE jitrca.security_event (
	event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	at timestamptz NOT NULL DEFAULT now(),
	kind text COLLATE "C" NOT NULL CHECK (kind ~ '^[a-z0-9_]{1,64}$'),
	severity text NOT NULL CHECK (severity IN ('info', 'low', 'medium', 'high', 'critical')),
	device_id text COLLATE "C",
	certificate_id text COLLATE "C",
	target text COLLATE "C",
	detail text NOT NULL DEFAULT '{}' -- a JSON object
);
CREATE INDEX security_event_at ON jitrca.security_event (at, event_id);
CREATE INDEX security_event_kind ON jitrca.security_event (kind, event_id);
CREATE INDEX security_event_device ON jitrca.security_event (device_id, event_id);
