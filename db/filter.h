/*
 * db/filter.h - the WHERE of a struct db_certificate_filter, for searching and for counting; private
 * to this room. What leads decides which index serves the statement; the rest only filters. Each
 * statement takes the thirteen parameters of filter_params first.
 */
#ifndef DB_FILTER_H
#define DB_FILTER_H

#include "db/certificate.h"
#include "db/run.h"

enum filter_lead {
	LEAD_ISSUED,    /* certificate_issued */
	LEAD_DEVICE,    /* certificate_device */
	LEAD_PRINCIPAL, /* certificate_principal */
	LEAD_MANIFEST,  /* certificate_manifest */
	LEAD_STATUS,    /* certificate_not_active */
	LEAD_PROFILE,   /* certificate_profile */
	/* And in order of the end, profile by profile where it is not the station that leads: */
	LEAD_END,             /* certificate_live, certificate_ended */
	LEAD_LIVE,            /* certificate_live */
	LEAD_ENDED,           /* certificate_ended */
	LEAD_PRINCIPAL_ENDED, /* certificate_ended_principal */
	LEADS,
};

#define LEAD_SQL_ISSUED ""
#define LEAD_SQL_DEVICE " AND c.device_id = $1::text"
#define LEAD_SQL_PRINCIPAL " AND c.principal_id = $2::text"
#define LEAD_SQL_MANIFEST " AND c.manifest_id = $3::text"
#define LEAD_SQL_STATUS " AND c.status = $6::text AND c.status <> 'active'"
#define LEAD_SQL_PROFILE " AND c.profile = $4::text"
#define LEAD_SQL_PRINCIPAL_ENDED LEAD_SQL_PRINCIPAL LEAD_SQL_STATUS

/*
 * Partitions are pruned by the months, when the statement starts. A page takes the lower bound of what it
 * is ordered by into its cursor and leaves that condition out (FILTER_FROM…): an index scan begins at one
 * of two lower bounds, and it might be the wrong one.
 */
#define MONTHS_SQL "c.expiry_month BETWEEN $12::int AND $13::int"
#define FILTER_REST                                                                                \
	MONTHS_SQL                                                                                     \
	" AND ($1::text IS NULL OR c.device_id = $1::text)"                                            \
	" AND ($2::text IS NULL OR c.principal_id = $2::text)"                                         \
	" AND ($3::text IS NULL OR c.manifest_id = $3::text)"                                          \
	" AND ($4::text IS NULL OR c.profile = $4::text)"                                              \
	" AND ($5::int IS NULL OR c.issuer_id = $5::int)"                                              \
	" AND ($6::text IS NULL OR CASE $6::text"                                                      \
	" WHEN 'expired' THEN c.status <> 'revoked' AND c.not_after <= to_timestamp($11::bigint)"      \
	" WHEN 'revoked' THEN c.status = 'revoked'"                                                    \
	" ELSE c.status = $6::text AND c.not_after > to_timestamp($11::bigint) END)"                   \
	" AND c.issued_at < to_timestamp($8::bigint) AND c.not_after < to_timestamp($10::bigint)"
#define FILTER_FROM_ISSUED " AND c.issued_at >= to_timestamp($7::bigint)"
#define FILTER_FROM_END " AND c.not_after >= to_timestamp($9::bigint)"
#define FILTER_SQL FILTER_REST FILTER_FROM_ISSUED FILTER_FROM_END

#define FILTER_PARAMS 13

/* Whether the pages of a lead are in order of (not_after, serial); else (issued_at, serial). */
static inline bool
filter_by_end(enum filter_lead lead)
{
	return lead >= LEAD_END && lead < LEADS;
}

enum filter_lead filter_lead(const struct db_certificate_filter *filter);
/* Borrows the filter's texts. */
void filter_params(struct db_param out[FILTER_PARAMS], const struct db_certificate_filter *filter);

#endif
