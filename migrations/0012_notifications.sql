-- Notifications (docs/notifications.md). A security event is a notification's cause, and its row says that
-- it has yet to be routed: what writes an event need not know who wants to hear of it. Routing turns it into
-- one delivery for each channel that a rule names, in one transaction.

-- What is there already is of yesterday. Two steps: the first fills the column without rewriting the table.
ALTER TABLE jitrca.security_event ADD COLUMN routed boolean NOT NULL DEFAULT true;
ALTER TABLE jitrca.security_event ALTER COLUMN routed SET DEFAULT false;
CREATE INDEX security_event_unrouted ON jitrca.security_event (event_id) WHERE NOT routed;

CREATE FUNCTION jitrca.notify_routing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_catalog.pg_notify('jitrca_notify', '');
	RETURN NULL;
END
$$;
CREATE TRIGGER security_event_routing AFTER INSERT ON jitrca.security_event
	FOR EACH STATEMENT EXECUTE FUNCTION jitrca.notify_routing();

-- What a channel may still be sent (a token bucket), and what it was not sent since the last summary.
CREATE TABLE jitrca.notification_channel (
	channel text COLLATE "C" PRIMARY KEY,
	bucket double precision NOT NULL,
	bucket_at timestamptz NOT NULL DEFAULT now(),
	repeats bigint NOT NULL DEFAULT 0,    -- told within repeat_after already
	over_rate bigint NOT NULL DEFAULT 0,
	over_queue bigint NOT NULL DEFAULT 0,
	worst smallint NOT NULL DEFAULT 0,    -- the highest severity of these: 0 info … 4 critical
	held_since timestamptz                -- of the first of these; NULL: there are none
) WITH (fillfactor = 50);

-- What a channel was told of late. Each row has cost a token of its bucket, so there are few.
CREATE TABLE jitrca.notification_told (
	channel text COLLATE "C" NOT NULL,
	key bytea NOT NULL CHECK (length(key) = 32),
	until timestamptz NOT NULL,
	PRIMARY KEY (channel, key)
);
CREATE INDEX notification_told_until ON jitrca.notification_told (until);

-- One message to one channel: waiting, sent, or a dead letter with its reason.
CREATE TABLE jitrca.notification (
	seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	notification_id text COLLATE "C" NOT NULL UNIQUE CHECK (notification_id ~ '^[0-9a-f]{32}$'),
	channel text COLLATE "C" NOT NULL,
	event_id bigint, -- NULL: a test, or a summary
	kind text COLLATE "C" NOT NULL,
	severity text NOT NULL,
	body text NOT NULL, -- JSON, as it is sent
	state text COLLATE "C" NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'dead')),
	attempts integer NOT NULL DEFAULT 0,
	created_at timestamptz NOT NULL DEFAULT now(),
	due_at timestamptz NOT NULL DEFAULT now(),
	lease bigint,
	lease_until timestamptz,
	ended_at timestamptz,
	error_code text NOT NULL DEFAULT '',
	error_text text NOT NULL DEFAULT ''
);
CREATE SEQUENCE jitrca.notification_lease;
CREATE UNIQUE INDEX notification_once ON jitrca.notification (event_id, channel) WHERE event_id IS NOT NULL;
CREATE INDEX notification_due ON jitrca.notification (channel, due_at, seq) WHERE state = 'waiting';
CREATE INDEX notification_old ON jitrca.notification (created_at) WHERE state = 'waiting';
CREATE INDEX notification_state ON jitrca.notification (state, seq);
CREATE INDEX notification_ended ON jitrca.notification (ended_at) WHERE state <> 'waiting';
