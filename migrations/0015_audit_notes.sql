-- Signed checkpoints of the audit log (ca/checkpoint.h): the note as it was signed, and what of each lane
-- came with it. Numbers are drawn before the key signs, so some may be missing.
CREATE SEQUENCE jitrca.audit_note_number;
CREATE TABLE jitrca.audit_note (
	number bigint PRIMARY KEY CHECK (number > 0),
	at timestamptz NOT NULL,
	records bigint NOT NULL CHECK (records >= 0),
	public_key bytea NOT NULL CHECK (length(public_key) = 32),
	note bytea NOT NULL
);
-- Only lanes that grew: the record that was last then, and the first that was new.
CREATE TABLE jitrca.audit_note_lane (
	lane integer NOT NULL REFERENCES jitrca.audit_lane,
	seq bigint NOT NULL,
	first_seq bigint NOT NULL CHECK (first_seq BETWEEN 1 AND seq),
	number bigint NOT NULL REFERENCES jitrca.audit_note,
	head bytea NOT NULL CHECK (length(head) = 32),
	PRIMARY KEY (lane, seq)
);
CREATE INDEX audit_note_lane_number ON jitrca.audit_note_lane (number, lane);
CREATE TRIGGER audit_note_guard BEFORE UPDATE OR DELETE ON jitrca.audit_note
	FOR EACH ROW EXECUTE FUNCTION jitrca.audit_guard();
CREATE TRIGGER audit_note_whole BEFORE TRUNCATE ON jitrca.audit_note
	EXECUTE FUNCTION jitrca.audit_guard();
CREATE TRIGGER audit_note_lane_guard BEFORE UPDATE OR DELETE ON jitrca.audit_note_lane
	FOR EACH ROW EXECUTE FUNCTION jitrca.audit_guard();
CREATE TRIGGER audit_note_lane_whole BEFORE TRUNCATE ON jitrca.audit_note_lane
	EXECUTE FUNCTION jitrca.audit_guard();

-- What retention let go of a lane: all up to the record at which a signed checkpoint stands, which stays.
CREATE TABLE jitrca.audit_dropped (
	lane integer PRIMARY KEY,
	seq bigint NOT NULL,
	at timestamptz NOT NULL DEFAULT now(),
	FOREIGN KEY (lane, seq) REFERENCES jitrca.audit_note_lane
);
CREATE FUNCTION jitrca.audit_dropped_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP <> 'UPDATE' OR NEW.lane <> OLD.lane OR NEW.seq < OLD.seq THEN
		RAISE EXCEPTION 'what was dropped of the audit log only grows' USING ERRCODE = '23514';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER audit_dropped_guard BEFORE UPDATE OR DELETE ON jitrca.audit_dropped
	FOR EACH ROW EXECUTE FUNCTION jitrca.audit_dropped_guard();
CREATE TRIGGER audit_dropped_whole BEFORE TRUNCATE ON jitrca.audit_dropped
	EXECUTE FUNCTION jitrca.audit_dropped_guard();

CREATE FUNCTION jitrca.audit_drop_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM jitrca.audit_dropped d WHERE d.lane = OLD.lane AND d.seq >= OLD.seq) THEN
		RAISE EXCEPTION 'the audit log is only added to' USING ERRCODE = '23514';
	END IF;
	RETURN OLD;
END $$;
DROP TRIGGER audit_record_guard ON jitrca.audit_record;
CREATE TRIGGER audit_record_guard BEFORE UPDATE ON jitrca.audit_record
	FOR EACH ROW EXECUTE FUNCTION jitrca.audit_guard();
CREATE TRIGGER audit_record_drop BEFORE DELETE ON jitrca.audit_record
	FOR EACH ROW EXECUTE FUNCTION jitrca.audit_drop_guard();
DROP TRIGGER audit_item_guard ON jitrca.audit_item;
CREATE TRIGGER audit_item_guard BEFORE UPDATE ON jitrca.audit_item
	FOR EACH ROW EXECUTE FUNCTION jitrca.audit_guard();
CREATE TRIGGER audit_item_drop BEFORE DELETE ON jitrca.audit_item
	FOR EACH ROW EXECUTE FUNCTION jitrca.audit_drop_guard();

-- A month of certificates that retention lets go, whole; never one that ended less than a month ago. A public
-- key stays its device's, but no device's slot names what is gone. Who reads meanwhile is waited for two
-- seconds: then the next round tries again.
CREATE FUNCTION jitrca.drop_month(month integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	gone bigint;
BEGIN
	IF month >= extract(year FROM now() AT TIME ZONE 'UTC') * 12
	   + extract(month FROM now() AT TIME ZONE 'UTC') - 2 THEN
		RAISE EXCEPTION 'expiry month % is not over for long', month USING ERRCODE = '23514';
	END IF;
	PERFORM set_config('lock_timeout', '2s', true);
	UPDATE jitrca.device_slot SET current_issuer = NULL, current_serial = NULL
		WHERE jitrca.serial_month(current_serial) = month;
	UPDATE jitrca.device_slot SET successor_issuer = NULL, successor_serial = NULL
		WHERE jitrca.serial_month(successor_serial) = month;
	EXECUTE format('ALTER TABLE jitrca.certificate DETACH PARTITION jitrca.certificate_%s', month);
	EXECUTE format('SELECT count(*) FROM jitrca.certificate_%s', month) INTO gone;
	EXECUTE format('DROP TABLE jitrca.certificate_%s', month);
	RETURN gone;
END $$;
