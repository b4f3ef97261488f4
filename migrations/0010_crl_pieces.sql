-- Lists of any length, and deltas (RFC 5280 5.2.4): a list lies in pieces, so that nobody ever holds it whole.
-- Scope -2 is the delta of scope -1, the full list; both take their numbers from the row of -1.

ALTER TABLE jitrca.crl_scope
	DROP CONSTRAINT crl_scope_scope_check,
	ADD CONSTRAINT crl_scope_scope_check CHECK (scope BETWEEN -2 AND 255);
INSERT INTO jitrca.crl_scope (issuer_id, scope)
	SELECT s.issuer_id, -2 FROM jitrca.crl_scope s WHERE s.scope = -1;

CREATE TABLE jitrca.crl_piece (
	issuer_id integer NOT NULL,
	scope smallint NOT NULL,
	number bigint NOT NULL,
	piece integer NOT NULL CHECK (piece >= 0),
	octets bytea NOT NULL,
	PRIMARY KEY (issuer_id, scope, number, piece),
	FOREIGN KEY (issuer_id, scope, number) REFERENCES jitrca.crl ON DELETE CASCADE
);
-- Serials are random: there is nothing to compress.
ALTER TABLE jitrca.crl_piece ALTER COLUMN octets SET STORAGE EXTERNAL;

INSERT INTO jitrca.crl_piece (issuer_id, scope, number, piece, octets)
	SELECT l.issuer_id, l.scope, l.number, n, substring(l.der FROM n * 262144 + 1 FOR 262144)
	FROM jitrca.crl l, generate_series(0, (length(l.der) - 1) / 262144) n;
ALTER TABLE jitrca.crl ADD COLUMN length bigint, ADD COLUMN base bigint; -- of a delta: the list that it goes on from
UPDATE jitrca.crl SET length = octet_length(der);
ALTER TABLE jitrca.crl ALTER COLUMN length SET NOT NULL, DROP COLUMN der;

-- The full lists that deltas go on from: the oldest is the base of the next delta. changes is what
-- crl_scope.wanted of the full list said when the list's number was reserved: all that is marked up to it is on it.
CREATE TABLE jitrca.crl_base (
	issuer_id integer NOT NULL,
	number bigint NOT NULL,
	changes bigint NOT NULL,
	this_update timestamptz NOT NULL,
	PRIMARY KEY (issuer_id, number)
);

-- What was revoked, held or lifted since the oldest base, marked with crl_scope.wanted of the full list as its
-- transaction left it. Its rows are few: what is on the base already is deleted.
CREATE TABLE jitrca.crl_change (
	issuer_id integer NOT NULL,
	serial bytea NOT NULL CHECK (length(serial) = 16),
	change bigint NOT NULL,
	changed_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (issuer_id, serial)
);

-- A list of a million is read from the index alone.
ALTER TABLE jitrca.revocation
	DROP CONSTRAINT revocation_pkey,
	ADD CONSTRAINT revocation_pkey PRIMARY KEY (issuer_id, serial) INCLUDE (revoked_at, reason, not_after);
