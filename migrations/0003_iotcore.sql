-- The local IoT Core: AWS IoT's control plane as rows, in a schema of its own.
--
-- Whatever the broker must know when it decides is followed by a row of iotcore.change, in the order in
-- which the changes were committed: the one row of iotcore.account is locked for each, so a reader that
-- has seen a number has seen all before it. A NOTIFY wakes the readers; one that was away reads on from
-- where it was.

CREATE SCHEMA iotcore;

CREATE TABLE iotcore.account (
	one boolean PRIMARY KEY DEFAULT true CHECK (one),
	account_id text COLLATE "C" NOT NULL CHECK (account_id ~ '^[0-9]{12}$'),
	region text COLLATE "C" NOT NULL,
	registration_code text COLLATE "C" CHECK (registration_code ~ '^[0-9a-f]{64}$'),
	change_seq bigint NOT NULL DEFAULT 0
);

CREATE TABLE iotcore.change (
	seq bigint PRIMARY KEY,
	kind text COLLATE "C" NOT NULL CHECK (kind IN ('ca', 'certificate', 'thing', 'group', 'policy')),
	key text COLLATE "C" NOT NULL, -- certificate id, or name
	at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX change_at ON iotcore.change (at);

CREATE FUNCTION iotcore.changed(kind text, key text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	UPDATE iotcore.account SET change_seq = change_seq + 1 RETURNING change_seq INTO n;
	INSERT INTO iotcore.change (seq, kind, key) VALUES (n, changed.kind, changed.key);
	PERFORM pg_notify('iotcore_change', '');
END $$;

CREATE TABLE iotcore.ca_certificate (
	certificate_id text COLLATE "C" PRIMARY KEY CHECK (certificate_id ~ '^[0-9a-f]{64}$'),
	pem text NOT NULL,
	der bytea NOT NULL,
	subject bytea NOT NULL, -- DER of the name
	status text NOT NULL CHECK (status IN ('ACTIVE', 'INACTIVE')),
	auto_registration boolean NOT NULL,
	mode text NOT NULL CHECK (mode IN ('DEFAULT', 'SNI_ONLY')),
	registration_config text, -- JSON
	not_before timestamptz NOT NULL,
	not_after timestamptz NOT NULL,
	generation uuid NOT NULL DEFAULT gen_random_uuid(),
	customer_version integer NOT NULL DEFAULT 1,
	created_at timestamptz NOT NULL DEFAULT now(),
	modified_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ca_certificate_created ON iotcore.ca_certificate (created_at, certificate_id);
CREATE INDEX ca_certificate_subject ON iotcore.ca_certificate (subject);

CREATE TABLE iotcore.certificate (
	certificate_id text COLLATE "C" PRIMARY KEY CHECK (certificate_id ~ '^[0-9a-f]{64}$'),
	ca_certificate_id text COLLATE "C", -- NULL: registered without one. Its CA may be deleted
	pem text NOT NULL,
	status text NOT NULL CHECK (status IN
		('ACTIVE', 'INACTIVE', 'REVOKED', 'PENDING_TRANSFER', 'PENDING_ACTIVATION')),
	mode text NOT NULL CHECK (mode IN ('DEFAULT', 'SNI_ONLY')),
	not_before timestamptz NOT NULL,
	not_after timestamptz NOT NULL,
	generation uuid NOT NULL DEFAULT gen_random_uuid(),
	customer_version integer NOT NULL DEFAULT 1,
	created_at timestamptz NOT NULL DEFAULT now(),
	modified_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX certificate_created ON iotcore.certificate (created_at, certificate_id);
CREATE INDEX certificate_ca ON iotcore.certificate (ca_certificate_id, created_at, certificate_id);

CREATE TABLE iotcore.thing_type (
	name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-zA-Z0-9:_-]{1,128}$'),
	thing_type_id uuid NOT NULL DEFAULT gen_random_uuid(),
	description text NOT NULL DEFAULT '',
	searchable_attributes text[] COLLATE "C" NOT NULL DEFAULT '{}',
	created_at timestamptz NOT NULL DEFAULT now(),
	deprecated_at timestamptz
);

CREATE TABLE iotcore.thing (
	name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-zA-Z0-9:_-]{1,128}$'),
	thing_id uuid NOT NULL DEFAULT gen_random_uuid(),
	thing_type text COLLATE "C" REFERENCES iotcore.thing_type,
	attributes jsonb NOT NULL DEFAULT '{}', -- an object of strings
	billing_group text COLLATE "C",
	version bigint NOT NULL DEFAULT 1,
	created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX thing_thing_type ON iotcore.thing (thing_type, name);
CREATE INDEX thing_attributes ON iotcore.thing USING gin (attributes jsonb_path_ops);

CREATE TABLE iotcore.thing_group (
	name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-zA-Z0-9:_-]{1,128}$'),
	thing_group_id uuid NOT NULL DEFAULT gen_random_uuid(),
	parent text COLLATE "C" REFERENCES iotcore.thing_group,
	description text NOT NULL DEFAULT '',
	attributes jsonb NOT NULL DEFAULT '{}',
	version bigint NOT NULL DEFAULT 1,
	created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX thing_group_parent ON iotcore.thing_group (parent, name);

CREATE TABLE iotcore.thing_group_member (
	thing text COLLATE "C" NOT NULL REFERENCES iotcore.thing ON DELETE CASCADE,
	thing_group text COLLATE "C" NOT NULL REFERENCES iotcore.thing_group ON DELETE CASCADE,
	PRIMARY KEY (thing, thing_group)
);
CREATE INDEX thing_group_member_group ON iotcore.thing_group_member (thing_group, thing);

-- Principals are certificates: their ids.
CREATE TABLE iotcore.thing_principal (
	thing text COLLATE "C" NOT NULL REFERENCES iotcore.thing,
	certificate_id text COLLATE "C" NOT NULL REFERENCES iotcore.certificate,
	exclusive boolean NOT NULL DEFAULT false,
	PRIMARY KEY (thing, certificate_id)
);
CREATE INDEX thing_principal_certificate ON iotcore.thing_principal (certificate_id, thing);

CREATE TABLE iotcore.policy (
	name text COLLATE "C" PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 128),
	default_version integer NOT NULL,
	last_version integer NOT NULL,
	generation text COLLATE "C" NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	modified_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE iotcore.policy_version (
	policy text COLLATE "C" NOT NULL REFERENCES iotcore.policy ON DELETE CASCADE,
	version integer NOT NULL CHECK (version > 0),
	document text NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (policy, version)
);

-- target: 'cert/<id>' or 'thinggroup/<name>', the resource part of its ARN.
CREATE TABLE iotcore.policy_attachment (
	policy text COLLATE "C" NOT NULL REFERENCES iotcore.policy,
	target text COLLATE "C" NOT NULL,
	PRIMARY KEY (target, policy)
);
CREATE INDEX policy_attachment_policy ON iotcore.policy_attachment (policy, target);

CREATE TABLE iotcore.security_profile (
	name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-zA-Z0-9:_-]{1,128}$'),
	description text NOT NULL DEFAULT '',
	behaviors text NOT NULL DEFAULT '[]',        -- JSON, as in AWS's API; the next three too
	alert_targets text NOT NULL DEFAULT '{}',
	metrics_to_retain text NOT NULL DEFAULT '[]', -- additionalMetricsToRetainV2
	metrics_export text NOT NULL DEFAULT '{}',
	version bigint NOT NULL DEFAULT 1,
	created_at timestamptz NOT NULL DEFAULT now(),
	modified_at timestamptz NOT NULL DEFAULT now()
);

-- target: an ARN as AWS has them, of all things or a thing group.
CREATE TABLE iotcore.security_profile_target (
	security_profile text COLLATE "C" NOT NULL REFERENCES iotcore.security_profile ON DELETE CASCADE,
	target text COLLATE "C" NOT NULL,
	PRIMARY KEY (security_profile, target)
);
CREATE INDEX security_profile_target_target ON iotcore.security_profile_target (target, security_profile);

CREATE TABLE iotcore.tag (
	arn text COLLATE "C" NOT NULL,
	key text COLLATE "C" NOT NULL,
	value text NOT NULL,
	PRIMARY KEY (arn, key)
);

-- Which registry events are wanted (UpdateEventConfigurations).
CREATE TABLE iotcore.event_configuration (
	event_type text COLLATE "C" PRIMARY KEY,
	enabled boolean NOT NULL,
	modified_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE iotcore.topic_rule (
	name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-zA-Z0-9_]{1,128}$'),
	payload text NOT NULL, -- JSON: TopicRulePayload
	topic text COLLATE "C" NOT NULL, -- the filter of its FROM
	disabled boolean NOT NULL DEFAULT false,
	created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE iotcore.topic_rule_destination (
	destination_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
	confirmation_url text COLLATE "C" NOT NULL UNIQUE,
	token text COLLATE "C" NOT NULL UNIQUE,
	status text NOT NULL CHECK (status IN ('ENABLED', 'IN_PROGRESS', 'DISABLED', 'ERROR')),
	status_reason text NOT NULL DEFAULT '',
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now()
);

-- Who is connected, as the broker sees it: for DescribeThing's like, presence and the console.
CREATE TABLE iotcore.session (
	client_id text COLLATE "C" PRIMARY KEY,
	certificate_id text COLLATE "C" NOT NULL,
	thing text COLLATE "C",
	address text NOT NULL,
	connected boolean NOT NULL,
	version bigint NOT NULL DEFAULT 1,
	at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION iotcore.follow() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	r record;
	target text;
BEGIN
	IF TG_OP = 'DELETE' THEN r := OLD; ELSE r := NEW; END IF;
	CASE TG_TABLE_NAME
	WHEN 'ca_certificate' THEN PERFORM iotcore.changed('ca', r.certificate_id);
	WHEN 'certificate' THEN PERFORM iotcore.changed('certificate', r.certificate_id);
	WHEN 'thing' THEN PERFORM iotcore.changed('thing', r.name);
	WHEN 'thing_group' THEN PERFORM iotcore.changed('group', r.name);
	WHEN 'thing_group_member' THEN PERFORM iotcore.changed('thing', r.thing);
	WHEN 'thing_principal' THEN PERFORM iotcore.changed('certificate', r.certificate_id);
	WHEN 'policy' THEN PERFORM iotcore.changed('policy', r.name);
	WHEN 'policy_version' THEN PERFORM iotcore.changed('policy', r.policy);
	WHEN 'policy_attachment' THEN
		target := r.target;
		IF target LIKE 'cert/%' THEN
			PERFORM iotcore.changed('certificate', substr(target, 6));
		ELSE
			PERFORM iotcore.changed('group', substr(target, 12));
		END IF;
	END CASE;
	RETURN NULL;
END $$;
CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON iotcore.ca_certificate
	FOR EACH ROW EXECUTE FUNCTION iotcore.follow();
CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON iotcore.certificate
	FOR EACH ROW EXECUTE FUNCTION iotcore.follow();
CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON iotcore.thing
	FOR EACH ROW EXECUTE FUNCTION iotcore.follow();
CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON iotcore.thing_group
	FOR EACH ROW EXECUTE FUNCTION iotcore.follow();
CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON iotcore.thing_group_member
	FOR EACH ROW EXECUTE FUNCTION iotcore.follow();
CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON iotcore.thing_principal
	FOR EACH ROW EXECUTE FUNCTION iotcore.follow();
CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON iotcore.policy
	FOR EACH ROW EXECUTE FUNCTION iotcore.follow();
CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON iotcore.policy_version
	FOR EACH ROW EXECUTE FUNCTION iotcore.follow();
CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON iotcore.policy_attachment
	FOR EACH ROW EXECUTE FUNCTION iotcore.follow();

-- REVOKED is final there too.
CREATE FUNCTION iotcore.certificate_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF OLD.status = 'REVOKED' AND NEW.status <> 'REVOKED' THEN
		RAISE EXCEPTION 'a revoked certificate stays revoked' USING ERRCODE = '23514';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER certificate_guard BEFORE UPDATE ON iotcore.certificate
	FOR EACH ROW EXECUTE FUNCTION iotcore.certificate_guard();
