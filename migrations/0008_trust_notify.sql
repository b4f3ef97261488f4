-- Who may be trusted changes here and nowhere else: each such change tells all servers, whoever made it,
-- so that they may remember who was let in (server/freshness.h). A notification of a transaction is sent
-- once however often it was asked for, and says no more than that there was one.

CREATE FUNCTION jitrca.notify_trust() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_catalog.pg_notify('jitrca_trust', '');
	RETURN NULL;
END
$$;

CREATE TRIGGER certificate_trust AFTER UPDATE OF status ON jitrca.certificate
	FOR EACH STATEMENT EXECUTE FUNCTION jitrca.notify_trust();
CREATE TRIGGER device_trust AFTER UPDATE OF status ON jitrca.device
	FOR EACH STATEMENT EXECUTE FUNCTION jitrca.notify_trust();
CREATE TRIGGER principal_trust AFTER UPDATE OF role, disabled_at OR DELETE ON jitrca.principal
	FOR EACH STATEMENT EXECUTE FUNCTION jitrca.notify_trust();
CREATE TRIGGER token_trust AFTER UPDATE OF principal_id, hash, expires_at, revoked_at OR DELETE
	ON jitrca.token FOR EACH STATEMENT EXECUTE FUNCTION jitrca.notify_trust();
