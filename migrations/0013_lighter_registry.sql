-- The local IoT Core's changes cost less. Their numbers follow each other in iotcore.change itself, behind
-- the lock of the account's row, whose every new version used to cost more than what it counted. And nobody
-- is woken by what concerns no session: a new thing, or a certificate that is not ACTIVE; the broker reads it
-- with the next change that does, or when it looks by itself.

CREATE FUNCTION iotcore.last_change() RETURNS bigint LANGUAGE sql STABLE AS $$
	SELECT greatest(a.change_seq, (SELECT max(h.seq) FROM iotcore.change h))
		FROM iotcore.account a WHERE a.one
$$;
COMMENT ON COLUMN iotcore.account.change_seq IS 'the last number of before 0013: see iotcore.last_change()';

CREATE FUNCTION iotcore.changed(kind text, key text, wake boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM FROM iotcore.account a WHERE a.one FOR UPDATE;
	INSERT INTO iotcore.change (seq, kind, key)
		SELECT greatest(a.change_seq, (SELECT max(h.seq) FROM iotcore.change h)) + 1,
			changed.kind, changed.key FROM iotcore.account a WHERE a.one;
	IF wake THEN
		PERFORM pg_notify('iotcore_change', '');
	END IF;
END $$;

CREATE FUNCTION iotcore.is_active(id text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN EXISTS (SELECT FROM iotcore.certificate c
		WHERE c.certificate_id = is_active.id AND c.status = 'ACTIVE');
END $$;

CREATE OR REPLACE FUNCTION iotcore.follow() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	r record;
	id text;
BEGIN
	IF TG_OP = 'DELETE' THEN r := OLD; ELSE r := NEW; END IF;
	CASE TG_TABLE_NAME
	WHEN 'certificate' THEN
		PERFORM iotcore.changed('certificate', r.certificate_id,
			r.status = 'ACTIVE' OR (TG_OP = 'UPDATE' AND OLD.status = 'ACTIVE'));
	WHEN 'policy_attachment' THEN
		IF r.target LIKE 'cert/%' THEN
			id := substr(r.target, 6);
			PERFORM iotcore.changed('certificate', id, iotcore.is_active(id));
		ELSE
			PERFORM iotcore.changed('group', substr(r.target, 12), true);
		END IF;
	WHEN 'thing_principal' THEN
		PERFORM iotcore.changed('certificate', r.certificate_id, iotcore.is_active(r.certificate_id));
	WHEN 'thing' THEN PERFORM iotcore.changed('thing', r.name, TG_OP <> 'INSERT');
	WHEN 'thing_group_member' THEN PERFORM iotcore.changed('thing', r.thing, true);
	WHEN 'thing_group' THEN PERFORM iotcore.changed('group', r.name, true);
	WHEN 'ca_certificate' THEN PERFORM iotcore.changed('ca', r.certificate_id, true);
	WHEN 'policy' THEN PERFORM iotcore.changed('policy', r.name, true);
	WHEN 'policy_version' THEN PERFORM iotcore.changed('policy', r.policy, true);
	END CASE;
	RETURN NULL;
END $$;

DROP FUNCTION iotcore.changed(text, text);
