-- Intents by rounds: what one transaction admits is recorded by one, as a rule, and so it is one row that comes
-- and goes. What is recorded or given up on apart from its round is taken out of it.
CREATE TYPE jitrca.intent_item AS (
	issuer_id integer,
	serial bytea,
	not_after timestamptz,
	principal_id text COLLATE "C",
	idempotency_key text COLLATE "C",
	identity text COLLATE "C",
	profile text COLLATE "C",
	spki_sha256 bytea,
	manifest_id text COLLATE "C",
	manifest_charged boolean -- false: rework of a line that was paid for
);

-- All that the key may have signed and that is not yet recorded. An item is the right to record; who takes it out
-- closes it: Record (with the certificate) or the reaper (with a revocation).
CREATE TABLE jitrca.intent_round (
	round_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	instance_id integer NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	serials bytea[] NOT NULL, -- of the items, in order
	items jitrca.intent_item[] NOT NULL,
	CHECK (cardinality(serials) > 0 AND cardinality(serials) = cardinality(items))
);
-- Serials and digests are random: there is little to compress.
ALTER TABLE jitrca.intent_round ALTER COLUMN serials SET STORAGE EXTERNAL, ALTER COLUMN items SET STORAGE EXTERNAL;

INSERT INTO jitrca.intent_round (instance_id, created_at, serials, items)
	SELECT t.instance_id, min(t.created_at), array_agg(t.serial ORDER BY t.serial),
	array_agg(ROW(t.issuer_id, t.serial, t.not_after, t.principal_id, t.idempotency_key, t.identity, t.profile,
	t.spki_sha256, t.manifest_id, t.manifest_charged)::jitrca.intent_item ORDER BY t.serial)
	FROM jitrca.intent t GROUP BY t.instance_id;
DROP TABLE jitrca.intent;
-- One by one, for who looks at all of them.
CREATE VIEW jitrca.intent AS SELECT r.round_id, r.instance_id, r.created_at, i.*
	FROM jitrca.intent_round r CROSS JOIN LATERAL unnest(r.items) i;
