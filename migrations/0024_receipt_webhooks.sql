-- Receipts name the webhooks that were told of a revocation, with what they answered, and are let go when they are
-- told to grow old.

ALTER TABLE jitrca.notification
	ADD COLUMN revocation_id text COLLATE "C", -- a receipt shows this delivery; it lives as long as the receipt
	ADD COLUMN http_status integer;            -- of the last answer, where there was one
CREATE INDEX notification_revocation ON jitrca.notification (revocation_id) WHERE revocation_id IS NOT NULL;
DROP INDEX jitrca.notification_ended;
CREATE INDEX notification_ended ON jitrca.notification (ended_at)
	WHERE state <> 'waiting' AND revocation_id IS NULL;

-- dropped: nobody sees it any more, its targets go page by page and then it.
ALTER TABLE jitrca.bulk_revocation ADD COLUMN dropped boolean NOT NULL DEFAULT false;
CREATE INDEX bulk_revocation_finished ON jitrca.bulk_revocation (finished_at)
	WHERE state IN ('done', 'rejected', 'expired');
