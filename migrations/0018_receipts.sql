-- Revocations with receipts. What a revocation means is frozen into rows when it is asked for, in one
-- transaction; carrying it out goes through them, and what takes effect where is noted beside them. One that is
-- large waits for a second administrator.

ALTER TABLE jitrca.bulk_revocation
	DROP CONSTRAINT bulk_revocation_state_check,
	ADD CONSTRAINT bulk_revocation_state_check CHECK
		(state IN ('waiting', 'running', 'done', 'rejected', 'expired')),
	ADD COLUMN cursor_issuer integer,     -- with cursor_serial: the last target that was carried out
	ADD COLUMN decide_until timestamptz,  -- of one that waits, or waited
	ADD COLUMN decided_at timestamptz,
	ADD COLUMN decided_by text COLLATE "C" NOT NULL DEFAULT '',
	ADD COLUMN decision text NOT NULL DEFAULT '', -- what the second one had to say
	ADD COLUMN settled_at timestamptz;    -- IoT Core, too, has it all: nobody looks any more
CREATE INDEX bulk_revocation_waiting ON jitrca.bulk_revocation (decide_until) WHERE state = 'waiting';
CREATE INDEX bulk_revocation_unsettled ON jitrca.bulk_revocation (revocation_id)
	WHERE state = 'done' AND settled_at IS NULL;
CREATE INDEX bulk_revocation_created ON jitrca.bulk_revocation (created_at, revocation_id);
UPDATE jitrca.bulk_revocation SET settled_at = finished_at WHERE state = 'done';
-- What is under way has no targets yet: its second look finds them all.
UPDATE jitrca.bulk_revocation SET pass = 1, cursor_at = NULL, cursor_serial = NULL,
	again_from = to_timestamp(0) WHERE state = 'running';

-- What a revocation means, and what became of it: NULL as long as its turn has not come.
CREATE TABLE jitrca.revocation_target (
	revocation_id text COLLATE "C" NOT NULL,
	issuer_id integer NOT NULL,
	serial bytea NOT NULL CHECK (length(serial) = 16),
	outcome text CHECK (outcome IN ('revoked', 'held', 'already_revoked', 'expired', 'superseded')),
	done_at timestamptz,
	PRIMARY KEY (revocation_id, issuer_id, serial)
) WITH (fillfactor = 70); -- each row is updated once

-- The lists that have to show it, and the first that does: published by whom the trigger below saw.
CREATE TABLE jitrca.revocation_list (
	revocation_id text COLLATE "C" NOT NULL,
	issuer_id integer NOT NULL,
	scope smallint NOT NULL,
	wanted bigint NOT NULL,       -- of crl_scope, when the last of its targets was carried out
	marked_at timestamptz NOT NULL,
	number bigint,                -- of the first list that has all of them
	sha256 bytea,
	done_at timestamptz,
	PRIMARY KEY (revocation_id, issuer_id, scope)
);
CREATE INDEX revocation_list_open ON jitrca.revocation_list (issuer_id, scope) WHERE done_at IS NULL;

-- Behind the lock of the scope, as whoever revokes is.
CREATE FUNCTION jitrca.crl_proved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE jitrca.revocation_list l SET done_at = now(), number = x.number, sha256 = x.sha256
		FROM (SELECT c.number, c.sha256 FROM jitrca.crl c WHERE c.issuer_id = NEW.issuer_id
			AND c.scope = NEW.scope ORDER BY c.number DESC LIMIT 1) x
		WHERE l.issuer_id = NEW.issuer_id AND l.scope = NEW.scope AND l.done_at IS NULL
			AND l.wanted <= NEW.published;
	RETURN NULL;
END $$;
CREATE TRIGGER crl_proved AFTER UPDATE OF published ON jitrca.crl_scope
	FOR EACH ROW WHEN (NEW.published > OLD.published) EXECUTE FUNCTION jitrca.crl_proved();

-- What IoT Core said when it was last asked about the targets, account by account.
CREATE TABLE jitrca.revocation_site (
	revocation_id text COLLATE "C" NOT NULL,
	target text COLLATE "C" NOT NULL,
	seen bigint NOT NULL,  -- targets that IoT Core knows
	done bigint NOT NULL,  -- of these, read back as they have to be
	read_back_at timestamptz,
	PRIMARY KEY (revocation_id, target)
);

-- Keys from a list of known bad ones. The block itself is key_claim.blocked_at; this says that it may be
-- lifted, and why it is there. A key that is revoked for compromise leaves this table, and stays blocked.
CREATE TABLE jitrca.blocked_key (
	spki_sha256 bytea PRIMARY KEY CHECK (length(spki_sha256) = 32),
	reason text NOT NULL,
	actor text COLLATE "C" NOT NULL,
	blocked_at timestamptz NOT NULL DEFAULT now()
);
