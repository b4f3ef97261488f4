-- Indexes that issuing fills. What ends with a serial or a digest never repeats itself: looking for what could be
-- deduplicated, before each page is split, finds nothing.
CREATE FUNCTION jitrca.no_duplicates(of regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	name regclass;
BEGIN
	FOR name IN SELECT i.indexrelid FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
	    WHERE i.indrelid = of AND c.relkind = 'i' LOOP
		EXECUTE pg_catalog.format('ALTER INDEX %s SET (deduplicate_items = off)', name);
	END LOOP;
END $$;

CREATE OR REPLACE FUNCTION jitrca.ensure_month(month integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	name text := format('certificate_%s', month);
BEGIN
	IF month < 0 OR month > 65535 THEN
		RAISE EXCEPTION 'expiry month % is out of range', month USING ERRCODE = '22003';
	END IF;
	IF to_regclass('jitrca.' || name) IS NULL THEN
		PERFORM pg_advisory_xact_lock(1784, -1);
		-- Looking again would not do: that the table is missing is cached, and waiting for an advisory
		-- lock does not empty the cache.
		BEGIN
			EXECUTE format('CREATE TABLE jitrca.%I (LIKE jitrca.certificate INCLUDING ALL)', name);
			EXECUTE format('CREATE TRIGGER certificate_whole BEFORE TRUNCATE ON jitrca.%I'
				' EXECUTE FUNCTION jitrca.record_guard()', name);
			EXECUTE format('ALTER TABLE jitrca.certificate ATTACH PARTITION jitrca.%I'
				' FOR VALUES FROM (%s) TO (%s)', name, month, month + 1);
			-- Here, for an index that has partitions takes no such setting.
			PERFORM jitrca.no_duplicates(format('jitrca.%I', name)::regclass);
		EXCEPTION WHEN duplicate_table THEN
			NULL; -- made while we waited
		END;
	END IF;
END $$;

SELECT jitrca.no_duplicates(p.inhrelid::regclass) FROM pg_inherits p WHERE p.inhparent = 'jitrca.certificate'::regclass;
SELECT jitrca.no_duplicates('jitrca.device');

-- An object's name has 76 octets, of which this takes eight; what has the same is told apart at the row.
DROP INDEX jitrca.audit_item_object;
CREATE INDEX audit_item_object ON jitrca.audit_item (hashtextextended(object, 0));
SELECT jitrca.no_duplicates('jitrca.audit_item');

-- All lines of a page are charged at once, and grow by what they are told of their certificate: with half of the
-- page free, every third found no room on it, and was written into both indexes again.
ALTER TABLE jitrca.manifest_line SET (fillfactor = 35);
