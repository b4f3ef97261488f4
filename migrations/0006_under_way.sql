-- A call to IoT Core that changes a certificate is announced here before it is made: should its outcome never
-- be recorded (a crash, a lost answer), whoever looks next says again what is wanted, instead of trusting a
-- status that may be of yesterday. 'DELETED' and under way: it may have been registered.

ALTER TABLE jitrca.iot_certificate
	ADD COLUMN under_way boolean NOT NULL DEFAULT false;
