-- Issuance writes a dozen rows a certificate. What looked up the same row for each of them, at the price of
-- another row, looks once a statement; what is updated soon after it was written finds room on its page.

-- An issuer is never deleted: then a certificate's is there if it was when the certificate was recorded.
CREATE TRIGGER issuer_stays BEFORE DELETE ON jitrca.issuer
	FOR EACH ROW EXECUTE FUNCTION jitrca.record_guard();
CREATE TRIGGER issuer_whole BEFORE TRUNCATE ON jitrca.issuer
	EXECUTE FUNCTION jitrca.record_guard();
ALTER TABLE jitrca.certificate DROP CONSTRAINT certificate_issuer_id_fkey;

CREATE OR REPLACE FUNCTION jitrca.certificate_born() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM born b WHERE b.status NOT IN ('revoked', 'held')
	    AND (SELECT true FROM jitrca.revocation r
	    WHERE r.issuer_id = b.issuer_id AND r.serial = b.serial)) THEN
		RAISE EXCEPTION 'a revoked certificate is not recorded as valid' USING ERRCODE = '23514';
	END IF;
	IF EXISTS (SELECT FROM (SELECT DISTINCT issuer_id FROM born) b WHERE NOT EXISTS
	    (SELECT FROM jitrca.issuer i WHERE i.issuer_id = b.issuer_id)) THEN
		RAISE EXCEPTION 'a certificate has an issuer on record' USING ERRCODE = '23503';
	END IF;
	RETURN NULL;
END $$;

-- Records are never deleted either.
ALTER TABLE jitrca.audit_item DROP CONSTRAINT audit_item_lane_seq_fkey;
CREATE FUNCTION jitrca.audit_item_born() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM (SELECT DISTINCT lane, seq FROM born) b WHERE NOT EXISTS
	    (SELECT FROM jitrca.audit_record r WHERE r.lane = b.lane AND r.seq = b.seq)) THEN
		RAISE EXCEPTION 'an audit item belongs to a record' USING ERRCODE = '23503';
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER audit_item_born AFTER INSERT ON jitrca.audit_item REFERENCING NEW TABLE AS born
	FOR EACH STATEMENT EXECUTE FUNCTION jitrca.audit_item_born();

-- Each line is updated once when it is charged and once when its certificate is recorded.
ALTER TABLE jitrca.manifest_line SET (fillfactor = 50);

-- There are never more open intents than batches under way: who reaps reads them by their key.
DROP INDEX jitrca.intent_instance;
