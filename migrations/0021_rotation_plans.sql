-- What expires when, as it was foreseen: a report that is made on a schedule or on demand, and kept.
CREATE TABLE jitrca.rotation_plan (
	plan_id text COLLATE "C" PRIMARY KEY CHECK (plan_id ~ '^[0-9a-f]{32}$'),
	actor text COLLATE "C" NOT NULL, -- "server": by schedule
	threshold_s bigint NOT NULL CHECK (threshold_s > 0),
	expiring bigint NOT NULL,
	late bigint NOT NULL,
	body text NOT NULL, -- JSON: the groups and the latest
	created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX rotation_plan_created ON jitrca.rotation_plan (created_at DESC, plan_id DESC);
CREATE INDEX rotation_plan_scheduled ON jitrca.rotation_plan (created_at) WHERE actor = 'server';
