-- What topic rules with an HTTP action send: confirmations of destinations, and messages.

ALTER TABLE iotcore.topic_rule_destination
	ADD COLUMN confirm_base text NOT NULL DEFAULT '', -- scheme and host of the API, as its client wrote them
	ADD COLUMN token_at timestamptz NOT NULL DEFAULT now(),
	ADD COLUMN confirmed boolean NOT NULL DEFAULT false,
	ADD COLUMN confirmation_due boolean NOT NULL DEFAULT true;
CREATE INDEX topic_rule_destination_due ON iotcore.topic_rule_destination (destination_id)
	WHERE confirmation_due;

-- A message on its way to rules: written by the broker, taken by the control plane, gone when it was
-- delivered or given up.
CREATE TABLE iotcore.rule_event (
	event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	topic text COLLATE "C" NOT NULL,
	payload text NOT NULL,
	due_at timestamptz NOT NULL DEFAULT now(), -- who takes it moves this on, so that nobody else does
	takes integer NOT NULL DEFAULT 0,
	at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX rule_event_due ON iotcore.rule_event (due_at, event_id);

CREATE FUNCTION iotcore.rule_wake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_notify('iotcore_rule', '');
	RETURN NULL;
END $$;
CREATE TRIGGER wake AFTER INSERT ON iotcore.rule_event
	FOR EACH STATEMENT EXECUTE FUNCTION iotcore.rule_wake();
CREATE TRIGGER wake AFTER INSERT OR UPDATE OF token ON iotcore.topic_rule_destination
	FOR EACH STATEMENT EXECUTE FUNCTION iotcore.rule_wake();
