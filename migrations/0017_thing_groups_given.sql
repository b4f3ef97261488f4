-- Which thing groups we have put a device's thing into: a row is written before the call. A group that a
-- profile names no longer is left again, and one that others put the thing into is not.

CREATE TABLE jitrca.iot_thing_group (
	target text COLLATE "C" NOT NULL,
	device_id text COLLATE "C" NOT NULL,
	thing_group text COLLATE "C" NOT NULL,
	given_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (target, device_id, thing_group)
);
