-- A reconciliation that is asked for begins the walk anew, while a step of the old one may be out on the
-- network: the step puts what it found only if nobody has asked since it read the row.

ALTER TABLE jitrca.iot_walk
	ADD COLUMN asked bigint NOT NULL DEFAULT 0; -- how often
