-- The recovery lane: a code that lets a device whose certificate has run out have one more successor, for the
-- public key that it names. Only the code's hash is kept.
CREATE TABLE jitrca.claim_code (
	claim_id text COLLATE "C" PRIMARY KEY CHECK (claim_id ~ '^[0-9a-f]{32}$'),
	hash bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
	device_id text COLLATE "C" NOT NULL,
	issuer_id integer NOT NULL, -- with serial: the certificate that has run out
	serial bytea NOT NULL CHECK (length(serial) = 16),
	spki_sha256 bytea NOT NULL CHECK (length(spki_sha256) = 32),
	issued_by text COLLATE "C" NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	expires_at timestamptz NOT NULL,
	used_at timestamptz
);
