-- One CA after another (docs/succession.md). The row says which of the two issues, on all servers, and how
-- far the change has come. What is over (retired, cancelled) stays as it is.

CREATE TABLE jitrca.ca_succession (
	succession_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	old_issuer integer NOT NULL REFERENCES jitrca.issuer,
	new_issuer integer NOT NULL REFERENCES jitrca.issuer,
	state text COLLATE "C" NOT NULL DEFAULT 'prepared' CHECK (state IN
		('prepared', 'registered', 'issuing', 'campaign', 'retiring', 'retired', 'cancelled')),
	campaign_id text COLLATE "C" NOT NULL DEFAULT '', -- of jitrca.campaign; '': none was needed yet
	actor text COLLATE "C" NOT NULL,                  -- of the last step
	started_at timestamptz NOT NULL DEFAULT now(),
	changed_at timestamptz NOT NULL DEFAULT now(),
	CHECK (old_issuer <> new_issuer)
);
-- One at a time, and a CA is succeeded once and succeeds once.
CREATE UNIQUE INDEX ca_succession_open ON jitrca.ca_succession ((true))
	WHERE state NOT IN ('retired', 'cancelled');
CREATE UNIQUE INDEX ca_succession_old ON jitrca.ca_succession (old_issuer) WHERE state <> 'cancelled';
CREATE UNIQUE INDEX ca_succession_new ON jitrca.ca_succession (new_issuer) WHERE state <> 'cancelled';

CREATE FUNCTION jitrca.ca_succession_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF OLD.state IN ('retired', 'cancelled') OR
	   (OLD.old_issuer, OLD.new_issuer) IS DISTINCT FROM (NEW.old_issuer, NEW.new_issuer) THEN
		RAISE EXCEPTION 'a succession that is over is not changed, nor whose it is' USING ERRCODE = '23514';
	END IF;
	RETURN NEW;
END
$$;
CREATE TRIGGER ca_succession_guard BEFORE UPDATE ON jitrca.ca_succession
	FOR EACH ROW EXECUTE FUNCTION jitrca.ca_succession_guard();

-- Every server must hear at once who issues: as of whom may be trusted (0008).
CREATE TRIGGER ca_succession_trust AFTER INSERT OR UPDATE OF state ON jitrca.ca_succession
	FOR EACH STATEMENT EXECUTE FUNCTION jitrca.notify_trust();
