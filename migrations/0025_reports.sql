-- Compliance reports: what there is, what is odd about it, and the state of the audit log, as it was. Made by a
-- job that walks all certificates in slices, one report at a time: place and work are how far it has come.
CREATE TABLE jitrca.report (
	report_id text COLLATE "C" PRIMARY KEY CHECK (report_id ~ '^[0-9a-f]{32}$'),
	actor text COLLATE "C" NOT NULL, -- "server": by schedule
	request_id text NOT NULL DEFAULT '',
	state text COLLATE "C" NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'failed')),
	created_at timestamptz NOT NULL DEFAULT now(),
	finished_at timestamptz,
	place_month integer NOT NULL DEFAULT 0,
	place_issuer integer NOT NULL DEFAULT 0,
	place_serial bytea NOT NULL DEFAULT '\x',
	seen bigint NOT NULL DEFAULT 0,     -- certificates so far
	expected bigint NOT NULL DEFAULT 0, -- about so many, as PostgreSQL estimates
	work text NOT NULL DEFAULT '',      -- JSON: the counts so far
	findings bigint NOT NULL DEFAULT 0,
	severity text COLLATE "C" NOT NULL DEFAULT '', -- the worst of them
	body bytea, -- the document, JSON, as its hash in the audit log is of
	sha256 bytea CHECK (length(sha256) = 32),
	error_code text NOT NULL DEFAULT '',
	error_text text NOT NULL DEFAULT '',
	CHECK ((state = 'done') = (body IS NOT NULL AND sha256 IS NOT NULL))
);
CREATE INDEX report_created ON jitrca.report (created_at DESC, report_id DESC);
CREATE INDEX report_scheduled ON jitrca.report (created_at) WHERE actor = 'server';
CREATE UNIQUE INDEX report_running ON jitrca.report (state) WHERE state = 'running';

-- What was reported is not reported otherwise later.
CREATE FUNCTION jitrca.report_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'a report that is made does not change' USING ERRCODE = '23514';
END $$;
CREATE TRIGGER report_guard BEFORE UPDATE ON jitrca.report
	FOR EACH ROW WHEN (OLD.state <> 'running') EXECUTE FUNCTION jitrca.report_guard();
