-- Registry events of the local IoT Core: what UpdateEventConfigurations has switched on is said on
-- $aws/events/… by the broker. The row is written with its cause; the broker's plugin publishes it, then
-- removes it, so that a crash of either may say it twice, and never not at all.

CREATE TABLE iotcore.registry_event (
	event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	topic text COLLATE "C" NOT NULL,
	payload text NOT NULL, -- JSON
	at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION iotcore.event_wanted(event_type text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN EXISTS (SELECT FROM iotcore.event_configuration e
		WHERE e.event_type = event_wanted.event_type AND e.enabled);
END $$;

-- operation is the topic's last part as well.
CREATE FUNCTION iotcore.say(event_type text, topic text, operation text, members jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO iotcore.registry_event (topic, payload) VALUES (
		'$aws/events/' || say.topic || '/' || lower(operation),
		(jsonb_build_object('eventType', event_type || '_EVENT', 'eventId', gen_random_uuid(),
			'timestamp', (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
			'operation', operation) || members)::text);
	PERFORM pg_notify('iotcore_registry_event', '');
END $$;

CREATE FUNCTION iotcore.operation_name(op text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE op WHEN 'INSERT' THEN 'CREATED' WHEN 'UPDATE' THEN 'UPDATED' ELSE 'DELETED' END
$$;

CREATE FUNCTION iotcore.say_thing() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	r iotcore.thing;
BEGIN
	IF TG_OP = 'DELETE' THEN r := OLD; ELSE r := NEW; END IF;
	IF iotcore.event_wanted('THING') AND (TG_OP <> 'UPDATE' OR NEW.version <> OLD.version) THEN
		PERFORM iotcore.say('THING', 'thing/' || r.name, iotcore.operation_name(TG_OP),
			jsonb_build_object('accountId', (SELECT a.account_id FROM iotcore.account a),
				'thingId', r.thing_id, 'thingName', r.name, 'versionNumber', r.version,
				'thingTypeName', r.thing_type, 'attributes', r.attributes));
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER say AFTER INSERT OR UPDATE OR DELETE ON iotcore.thing
	FOR EACH ROW EXECUTE FUNCTION iotcore.say_thing();

-- What goes with a deleted thing is not said one by one.
CREATE FUNCTION iotcore.say_association() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	before text := CASE TG_OP WHEN 'UPDATE' THEN OLD.thing_type END;
BEGIN
	IF before IS NOT DISTINCT FROM NEW.thing_type OR
	   NOT iotcore.event_wanted('THING_TYPE_ASSOCIATION') THEN
		RETURN NULL;
	END IF;
	PERFORM iotcore.say('THING_TYPE_ASSOCIATION',
		'thingTypeAssociation/thing/' || NEW.name || '/thingType/' || t.name, t.operation,
		jsonb_build_object('thingId', NEW.thing_id, 'thingName', NEW.name, 'thingTypeName', t.name))
		FROM (VALUES (before, 'REMOVED'), (NEW.thing_type, 'ADDED')) t(name, operation)
		WHERE t.name IS NOT NULL;
	RETURN NULL;
END $$;
CREATE TRIGGER say_association AFTER INSERT OR UPDATE OF thing_type ON iotcore.thing
	FOR EACH ROW EXECUTE FUNCTION iotcore.say_association();

CREATE FUNCTION iotcore.say_thing_type() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	r iotcore.thing_type;
BEGIN
	IF TG_OP = 'DELETE' THEN r := OLD; ELSE r := NEW; END IF;
	IF iotcore.event_wanted('THING_TYPE') THEN
		PERFORM iotcore.say('THING_TYPE', 'thingType/' || r.name, iotcore.operation_name(TG_OP),
			jsonb_build_object('accountId', (SELECT a.account_id FROM iotcore.account a),
				'thingTypeId', r.thing_type_id, 'thingTypeName', r.name,
				'isDeprecated', r.deprecated_at IS NOT NULL,
				'deprecationDate', (extract(epoch FROM r.deprecated_at) * 1000)::bigint,
				'searchableAttributes', r.searchable_attributes,
				'description', nullif(r.description, '')));
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER say AFTER INSERT OR UPDATE OR DELETE ON iotcore.thing_type
	FOR EACH ROW EXECUTE FUNCTION iotcore.say_thing_type();

CREATE FUNCTION iotcore.group_arn(name text) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT 'arn:aws:iot:' || a.region || ':' || a.account_id || ':thinggroup/' || group_arn.name
		FROM iotcore.account a
$$;

CREATE FUNCTION iotcore.say_thing_group() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	r iotcore.thing_group;
	parent_id uuid;
	account text := (SELECT a.account_id FROM iotcore.account a);
	above jsonb;
BEGIN
	IF TG_OP = 'DELETE' THEN r := OLD; ELSE r := NEW; END IF;
	parent_id := (SELECT g.thing_group_id FROM iotcore.thing_group g WHERE g.name = r.parent);
	IF iotcore.event_wanted('THING_GROUP') AND (TG_OP <> 'UPDATE' OR NEW.version <> OLD.version) THEN
		WITH RECURSIVE up AS (SELECT g.name, g.thing_group_id, g.parent, 1 AS level
			FROM iotcore.thing_group g WHERE g.name = r.parent
			UNION ALL SELECT g.name, g.thing_group_id, g.parent, u.level + 1
			FROM iotcore.thing_group g JOIN up u ON g.name = u.parent)
		SELECT coalesce(jsonb_agg(jsonb_build_object('groupArn', iotcore.group_arn(u.name),
			'groupId', u.thing_group_id) ORDER BY u.level DESC), '[]') FROM up u INTO above;
		PERFORM iotcore.say('THING_GROUP', 'thingGroup/' || r.name, iotcore.operation_name(TG_OP),
			jsonb_build_object('accountId', account, 'thingGroupId', r.thing_group_id,
				'thingGroupName', r.name, 'versionNumber', r.version,
				'parentGroupName', r.parent, 'parentGroupId', parent_id,
				'description', nullif(r.description, ''), 'rootToParentThingGroups', above,
				'attributes', r.attributes, 'dynamicGroupMappingId', NULL));
	END IF;
	IF parent_id IS NOT NULL AND TG_OP <> 'UPDATE' AND iotcore.event_wanted('THING_GROUP_HIERARCHY') THEN
		PERFORM iotcore.say('THING_GROUP_HIERARCHY',
			'thingGroupHierarchy/thingGroup/' || r.parent || '/childThingGroup/' || r.name,
			CASE TG_OP WHEN 'INSERT' THEN 'ADDED' ELSE 'REMOVED' END,
			jsonb_build_object('accountId', account, 'thingGroupId', parent_id,
				'thingGroupName', r.parent, 'childGroupId', r.thing_group_id,
				'childGroupName', r.name));
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER say AFTER INSERT OR UPDATE OR DELETE ON iotcore.thing_group
	FOR EACH ROW EXECUTE FUNCTION iotcore.say_thing_group();

-- A membership that goes with its thing or its group is not said: neither is there any more.
CREATE FUNCTION iotcore.say_membership() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	r iotcore.thing_group_member;
BEGIN
	IF TG_OP = 'DELETE' THEN r := OLD; ELSE r := NEW; END IF;
	IF iotcore.event_wanted('THING_GROUP_MEMBERSHIP') THEN
		PERFORM iotcore.say('THING_GROUP_MEMBERSHIP',
			'thingGroupMembership/thingGroup/' || r.thing_group || '/thing/' || r.thing,
			CASE TG_OP WHEN 'INSERT' THEN 'ADDED' ELSE 'REMOVED' END,
			jsonb_build_object('accountId', a.account_id,
				'groupArn', iotcore.group_arn(g.name), 'groupId', g.thing_group_id,
				'thingArn', 'arn:aws:iot:' || a.region || ':' || a.account_id || ':thing/' || t.name,
				'thingId', t.thing_id,
				'membershipId', md5(g.thing_group_id::text || t.thing_id::text)::uuid))
			FROM iotcore.thing t, iotcore.thing_group g, iotcore.account a
			WHERE t.name = r.thing AND g.name = r.thing_group;
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER say AFTER INSERT OR DELETE ON iotcore.thing_group_member
	FOR EACH ROW EXECUTE FUNCTION iotcore.say_membership();
