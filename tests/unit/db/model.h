/* tests/unit/db/model.h - random operations, held against a small model in memory. */
#ifndef TESTS_UNIT_DB_MODEL_H
#define TESTS_UNIT_DB_MODEL_H

#define MODEL_DEVICES 24
#define MODEL_OPERATIONS 3000

/* A device: what is live of it, and what is under way. */
struct model_device {
	char id[24];
	struct db_cert_ref current, successor; /* issuer_id 0: none */
	bool current_held;
	bool charged;                          /* its manifest line */
	struct db_admit_item under_way;        /* admission ADMISSION_ADMITTED: yes */
};

static unsigned model_seed = 20261124;

static int
dice(int sides)
{
	return rand_r(&model_seed) % sides;
}

/* What Admit must answer. */
static enum db_admission
model_admission(const struct model_device *d, const struct db_admit_item *item, int left,
	const char **code)
{
	*code = "";
	if (d->under_way.admission == ADMISSION_ADMITTED)
		return ADMISSION_BUSY;
	if (item->slot == SLOT_SUCCESSOR) {
		if (d->current.issuer_id == 0 || d->current_held) {
			*code = "certificate_not_current";
			return ADMISSION_REFUSED;
		}
		return ADMISSION_ADMITTED;
	}
	if ((d->current.issuer_id != 0 || d->successor.issuer_id != 0) && !item->replace) {
		*code = "device_has_certificate";
		return ADMISSION_REFUSED;
	}
	if (item->needs_manifest && !d->charged && left == 0) {
		*code = "quota_exhausted";
		return ADMISSION_REFUSED;
	}
	return ADMISSION_ADMITTED;
}

static void
what_the_model_says_is_what_the_database_says(void **state)
{
	static struct model_device devices[MODEL_DEVICES];
	int left = MODEL_DEVICES / 2;
	int admitted = 0;

	(void)state;
	sql("INSERT INTO jitrca.manifest (manifest_id, station_id, profile, quantity, allow_replace,"
	    " not_before, not_after, created_by) VALUES ('m-model', 'st', 'device', %d, true,"
	    " now() - interval '1 hour', now() + interval '1 day', 'x')", left);
	for (int i = 0; i < MODEL_DEVICES; i++) {
		snprintf(devices[i].id, sizeof(devices[i].id), "model-%d", i);
		sql("INSERT INTO jitrca.manifest_line (device_id, manifest_id)"
		    " VALUES ('%s', 'm-model')", devices[i].id);
	}

	for (int o = 0; o < MODEL_OPERATIONS; o++) {
		struct model_device *d = &devices[dice(MODEL_DEVICES)];
		bool under_way = d->under_way.admission == ADMISSION_ADMITTED;
		struct db_admit_item item;
		enum db_admission want;
		const char *code;

		switch (dice(10)) {
		case 0:
		case 1:
		case 2:
		case 3: { /* admit */
			int kind = dice(3);

			item = kind == 0 ? ask(d->id) : kind == 1 ? ask_station("st", d->id) :
				ask_successor(d->id, &d->current);
			item.replace = kind != 2 && dice(2) == 0;
			want = model_admission(d, &item, left, &code);
			admit(&item, 1);
			if (item.admission != want)
				fail_msg("operation %d on %s: %d wanted, %d found (%s)", o, d->id,
					(int)want, (int)item.admission, item.refusal.code);
			if (want == ADMISSION_REFUSED)
				assert_string_equal(item.refusal.code, code);
			if (want != ADMISSION_ADMITTED)
				break;
			admitted++;
			assert_int_equal(item.manifest_charged, item.needs_manifest && !d->charged);
			if (item.manifest_charged) {
				left--;
				d->charged = true;
			}
			d->under_way = item;
			break;
		}
		case 4:
		case 5: /* record */
			if (!under_way)
				break;
			record(&d->under_way, 1);
			if (d->under_way.slot == SLOT_SUCCESSOR) {
				/* Whose certificate was revoked meanwhile does not rotate. */
				d->successor = d->current.issuer_id != 0 ? d->under_way.ref :
					(struct db_cert_ref){ 0 };
			} else {
				d->current = d->under_way.ref;
				d->current_held = false;
				d->successor = (struct db_cert_ref){ 0 };
			}
			d->under_way.admission = ADMISSION_UNSET;
			break;
		case 6: { /* the server gives up */
			own_struct(db_tx) tx = { 0 };
			struct db_orphan orphan;
			size_t n;

			if (!under_way)
				break;
			MUST(db_tx_begin(&tx, world_pool, err));
			MUST(db_issuance_reap(&tx, 1, &d->under_way.ref, 1, &orphan, 1, &n, err));
			MUST(db_tx_commit(&tx, err));
			assert_int_equal(n, 1);
			if (d->under_way.manifest_charged) {
				left++;
				d->charged = false;
			}
			d->under_way.admission = ADMISSION_UNSET;
			break;
		}
		case 7: /* revoke or hold */
			if (d->current.issuer_id != 0 && !d->current_held && dice(2) == 0) {
				assert_true(revoke_one(&d->current, REASON_CERTIFICATE_HOLD).changed);
				d->current_held = true;
			} else if (d->current.issuer_id != 0) {
				assert_true(revoke_one(&d->current, REASON_UNSPECIFIED).changed);
				d->current = (struct db_cert_ref){ 0 };
				d->current_held = false;
			}
			break;
		case 8: /* confirm */
			if (d->successor.issuer_id == 0)
				break;
			assert_true(confirm(&d->successor, dice(2) == 0));
			d->current = d->successor;
			d->current_held = false;
			d->successor = (struct db_cert_ref){ 0 };
			break;
		default: { /* unhold */
			own_struct(db_tx) tx = { 0 };

			if (!d->current_held)
				break;
			MUST(db_tx_begin(&tx, world_pool, err));
			MUST(db_revocation_unhold(&tx, &d->current, err));
			MUST(db_tx_commit(&tx, err));
			d->current_held = false;
			break;
		}
		}
	}
	assert_true(admitted > MODEL_OPERATIONS / 20);

	for (int i = 0; i < MODEL_DEVICES; i++) {
		struct model_device *d = &devices[i];

		assert_int_equal(count("device_slot WHERE device_id = '%s' AND current_serial = '\\x%s'",
			d->id, hex(&d->current)), d->current.issuer_id != 0);
		assert_int_equal(count("device_slot WHERE device_id = '%s'"
			" AND successor_serial = '\\x%s'", d->id, hex(&d->successor)),
			d->successor.issuer_id != 0);
	}
	assert_int_equal(strtoll(sql("SELECT quantity - used FROM jitrca.manifest"
		" WHERE manifest_id = 'm-model'"), NULL, 10), left);
	assert_int_equal(count("manifest_line WHERE manifest_id = 'm-model' AND used_at IS NOT NULL"),
		MODEL_DEVICES / 2 - left);

	/* The invariants, for all that this program did. */
	assert_int_equal(count("(SELECT device_id FROM jitrca.certificate WHERE of_device"
		" AND status IN ('active', 'held') AND not_after > now() GROUP BY 1"
		" HAVING count(*) > 1) x"), 0);
	assert_int_equal(count("(SELECT device_id FROM jitrca.certificate WHERE of_device"
		" AND status = 'pending_confirmation' GROUP BY 1 HAVING count(*) > 1) x"), 0);
	assert_int_equal(count("certificate c LEFT JOIN jitrca.revocation r USING (issuer_id, serial)"
		" WHERE (c.status IN ('revoked', 'held')) <> (r.serial IS NOT NULL)"), 0);
	assert_int_equal(count("certificate c JOIN jitrca.revocation r USING (issuer_id, serial)"
		" WHERE (c.status = 'held') <> (r.reason = 6)"), 0);
	assert_int_equal(count("(SELECT claim_serial AS s FROM jitrca.device_slot WHERE claim_serial"
		" IS NOT NULL UNION SELECT claim_serial FROM jitrca.key_claim WHERE claim_serial IS NOT"
		" NULL EXCEPT SELECT serial FROM jitrca.intent) x"), 0);
	assert_int_equal(count("(SELECT current_serial AS s FROM jitrca.device_slot WHERE current_serial"
		" IS NOT NULL UNION SELECT serial FROM jitrca.key_claim WHERE serial IS NOT NULL"
		" EXCEPT (SELECT serial FROM jitrca.intent UNION SELECT serial FROM jitrca.certificate)) x"),
		0);
	assert_int_equal(count("device WHERE device_id NOT IN"
		" (SELECT device_id FROM jitrca.device_slot)"), 0);
	assert_int_equal(count("(SELECT serial FROM jitrca.intent INTERSECT (SELECT serial FROM"
		" jitrca.certificate UNION SELECT serial FROM jitrca.revocation)) x"), 0);
	assert_int_equal(count("(SELECT spki_sha256 FROM jitrca.certificate GROUP BY 1"
		" HAVING count(DISTINCT device_id) > 1) x"), 0);
	assert_int_equal(count("device_slot s JOIN jitrca.certificate c ON c.serial = s.current_serial"
		" WHERE c.status NOT IN ('active', 'held') OR c.device_id <> s.device_id"), 0);
	assert_int_equal(count("device d LEFT JOIN jitrca.outbox o USING (device_id)"
		" WHERE d.device_id LIKE 'model-%%' AND o.version IS DISTINCT FROM d.version"), 0);
	assert_int_equal(count("manifest m WHERE used <> (SELECT count(*) FROM jitrca.manifest_line l"
		" WHERE l.manifest_id = m.manifest_id AND l.used_at IS NOT NULL)"), 0);
}

#endif
