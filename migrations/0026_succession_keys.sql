-- What a step of a succession looks at (docs/succession.md): how many live certificates of devices a CA has, as
-- far as they are counted, and which CAs the running servers hold keys of.

-- Issuing appends to it: of one issuer the ends grow. What is superseded or revoked leaves it.
CREATE INDEX certificate_of_issuer ON jitrca.certificate (issuer_id, not_after)
	WHERE of_device AND status IN ('active', 'pending_confirmation', 'held');
SELECT jitrca.no_duplicates(p.inhrelid::regclass) FROM pg_inherits p WHERE p.inhparent = 'jitrca.certificate'::regclass;

-- Those that it can sign with; none: a program that did not say so yet.
ALTER TABLE jitrca.instance ADD COLUMN issuers integer[] NOT NULL DEFAULT '{}';
