#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ca/file.h"
#include "ca/keystore.h"
#include "server/cas.h"
#include "server/cli/local.h"
#include "server/passphrase.h"

#define ROOT_ID "root"
#define ROOT_VALIDITY_S (INT64_C(7300) * 86400)    /* twenty years */
#define ISSUING_VALIDITY_S (INT64_C(3650) * 86400) /* ten */
#define IMPORT_MAX_BYTES (256 * 1024)

struct choice {
	const char *config_path, *key_type, *root_key, *organization, *import, *chain, *token_file;
	const char *successor, *new_root, *new_root_key;
	bool external_root, fast_seal;
};

struct init {
	struct choice choice;
	struct config config;
	char keys_dir[CONFIG_TEXT_BYTES + 8];
	struct secret passphrase;
	struct ca_ceremony ceremony;
	const char *issuing_id; /* of the issuing CA that is made */
	char common_name[128];  /* a successor's */
	bool waits; /* for a company's root to sign our CSR */
};

static bool
have(const struct init *init, const char *ca_id, const char *suffix)
{
	char path[FILE_PATH_BYTES];
	struct err err;

	return file_path(path, init->keys_dir, ca_id, suffix, &err) == OK && file_exists(path);
}

static enum status
make_dirs(const struct init *init, struct err *err)
{
	TRY(directory_make(init->config.data_dir, err));
	return directory_make(init->keys_dir, err);
}

/*
 * Beside the issuing CA and under the same root; its name says its id, for two CAs must not have one subject
 * (RFC 5280 4.1.2.6; IoT Core bears ten of them). Needs neither database nor server.
 */
static enum status
read_successor(struct init *init, struct err *err)
{
	const char *organization = init->choice.organization;

	if (!have(init, init->config.issuing_ca, ".crt"))
		return err_set(err, ERR_NOT_FOUND, "keystore_absent",
			"--successor: %s/%s.crt wanted, which it is to succeed", init->keys_dir,
			init->config.issuing_ca);
	init->issuing_id = init->choice.successor;
	(void)snprintf(init->common_name, sizeof(init->common_name), "%s Issuing CA %s",
		organization != NULL ? organization : "jitrca", init->choice.successor);
	init->ceremony.common_name = init->common_name;
	return OK;
}

static enum status
read_choice(struct init *init, struct err *err)
{
	struct choice *choice = &init->choice;
	enum ca_key_type type = KEY_EC_P256;

	if (choice->new_root != NULL && (choice->successor == NULL || choice->external_root))
		return err_set(err, ERR_ARGUMENT, "usage",
			"--new-root belongs to --successor, and not to --external-root");
	if ((choice->import == NULL) != (choice->chain == NULL))
		return err_set(err, ERR_ARGUMENT, "usage", "--import and --chain belong together");
	if (choice->key_type != NULL && !ca_key_type_parse(&type, choice->key_type))
		return err_set(err, ERR_ARGUMENT, "usage",
			"--key-type: ec-p256, ec-p384, rsa-3072 or rsa-4096 wanted, '%s' found",
			choice->key_type);
	TRY(config_load(&init->config, local_config_path(choice->config_path), err));
	(void)snprintf(init->keys_dir, sizeof(init->keys_dir), "%s/keys", init->config.data_dir);
	init->ceremony = (struct ca_ceremony){
		.dir = init->keys_dir,
		.key_type = type,
		.organization = choice->organization,
		.public_http_url = init->config.public_http_url,
		.clock = &CLOCK_SYSTEM,
		.entropy = &ENTROPY_SYSTEM,
		.fast_seal = choice->fast_seal,
	};
	init->issuing_id = init->config.issuing_ca;
	return choice->successor != NULL ? read_successor(init, err) : OK;
}

/* ---- the keys ---- */

static enum status
make_root(struct init *init, struct err *err)
{
	if (have(init, ROOT_ID, ".crt")) {
		printf("root CA: is there (%s/" ROOT_ID ".crt)\n", init->keys_dir);
		return OK;
	}
	init->ceremony.ca_id = ROOT_ID;
	init->ceremony.validity_s = ROOT_VALIDITY_S;
	TRY(ca_keystore_make_root(&init->ceremony, init->choice.root_key, err));
	printf("root CA: made; its certificate is %s/" ROOT_ID ".crt, its sealed key %s\n",
		init->keys_dir,
		init->choice.root_key != NULL ? init->choice.root_key : "beside it");
	return OK;
}

/* The successor's own root, which the one that is there certifies. */
static enum status
make_new_root(struct init *init, struct err *err)
{
	const char *organization = init->choice.organization;
	const char *id = init->choice.new_root;
	struct ca_ceremony ceremony = init->ceremony;
	char name[128];

	(void)snprintf(name, sizeof(name), "%s Root CA %s",
		organization != NULL ? organization : "jitrca", id);
	ceremony.ca_id = id;
	ceremony.common_name = name;
	ceremony.validity_s = ROOT_VALIDITY_S;
	if (!have(init, id, ".crt"))
		TRY(ca_keystore_make_root(&ceremony, init->choice.new_root_key, err));
	if (!have(init, id, ".cross.pem"))
		TRY(ca_keystore_make_cross(&ceremony, ROOT_ID, init->choice.root_key, err));
	printf("new root CA: %s/%s.crt, certified by the old one in %s.cross.pem\n", init->keys_dir, id, id);
	return OK;
}

static enum status
make_csr(struct init *init, struct err *err)
{
	const char *id = init->issuing_id;

	init->waits = true;
	if (have(init, id, ".csr")) {
		printf("issuing CA: %s/%s.csr waits to be signed\n", init->keys_dir, id);
	} else {
		TRY(ca_keystore_make_csr(&init->ceremony, err));
		printf("issuing CA: key made; have %s/%s.csr signed by your root\n", init->keys_dir,
			id);
	}
	printf("then: jitrca init --import CERTIFICATE.pem --chain CHAIN.pem%s%s\n",
		init->choice.successor != NULL ? " --successor " : "",
		init->choice.successor != NULL ? id : "");
	return OK;
}

static enum status
import(struct init *init, struct err *err)
{
	own_struct(bytes) certificate = { NULL, 0 };
	own_struct(bytes) chain = { NULL, 0 };

	TRY(file_read(&certificate, init->choice.import, IMPORT_MAX_BYTES, err));
	TRY(file_read(&chain, init->choice.chain, IMPORT_MAX_BYTES, err));
	TRY(ca_keystore_import(&init->ceremony, view_of(&certificate), view_of(&chain), err));
	printf("issuing CA: certificate and chain imported\n");
	return OK;
}

static enum status
make_issuing(struct init *init, struct err *err)
{
	const char *id = init->issuing_id;
	const char *root_key = init->choice.root_key;
	const char *root_id = ROOT_ID;

	init->ceremony.ca_id = id;
	init->ceremony.validity_s = ISSUING_VALIDITY_S;
	if (have(init, id, ".crt")) {
		printf("issuing CA: is there (%s/%s.crt)\n", init->keys_dir, id);
		return OK;
	}
	if (init->choice.import != NULL)
		return import(init, err);
	/* A CSR that waits says that the root is elsewhere, whatever is asked for now. */
	if (init->choice.external_root || have(init, id, ".csr"))
		return make_csr(init, err);
	if (init->choice.successor == NULL) /* whose root is there */
		TRY(make_root(init, err));
	if (init->choice.new_root != NULL) {
		TRY(make_new_root(init, err));
		root_id = init->choice.new_root;
		root_key = init->choice.new_root_key;
	}
	init->ceremony.ca_id = id;
	init->ceremony.validity_s = ISSUING_VALIDITY_S;
	TRY(ca_keystore_make_issuing(&init->ceremony, root_id, root_key, err));
	printf("issuing CA: made (%s/%s.crt)\n", init->keys_dir, id);
	if (init->choice.successor != NULL)
		printf("then: reload the servers, and jitrca ca succession start %s --successor %s\n",
			init->config.issuing_ca, id);
	return OK;
}

/* An installation that is older than this key gets it by another `jitrca init`. */
static enum status
make_checkpoint_key(struct init *init, struct err *err)
{
	if (have(init, CA_CHECKPOINT_KEY_NAME, ".pub")) {
		printf("checkpoint key: is there (%s/" CA_CHECKPOINT_KEY_NAME ".pub)\n", init->keys_dir);
		return OK;
	}
	TRY(ca_keystore_make_checkpoint_key(&init->ceremony, err));
	printf("checkpoint key: made (%s/" CA_CHECKPOINT_KEY_NAME ".pub)\n", init->keys_dir);
	return OK;
}

static enum status
make_keys(struct init *init, struct err *err)
{
	bool fresh;

	TRY(ca_init(err));
	TRY(ca_secure_heap_init(err));
	TRY(make_dirs(init, err));
	fresh = !have(init, "seal", ".params");
	TRY(passphrase_read(&init->passphrase, &init->config, fresh, err));
	init->ceremony.passphrase = (struct view){ init->passphrase.data, init->passphrase.len };
	TRY(make_issuing(init, err));
	return make_checkpoint_key(init, err);
}

/* ---- the database ---- */

typedef struct db_pool db_pool;
OWNER(db_pool, db_pool_free)

static enum status
register_cas(struct init *init, const struct ca_keystore *keystore, struct err *err)
{
	own(db_pool) pool = NULL;
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_pool_new(&pool, init->config.database_url, 1, err));
	TRY(db_tx_begin(&tx, pool, err));
	for (size_t i = 0; i < ca_keystore_count(keystore); i++) {
		const struct ca_keystore_entry *entry = ca_keystore_at(keystore, i);
		struct cas_source source = { .ca_id = entry->ca_id,
			.is_root = entry->is_root,
			.can_sign = entry->key != NULL && !entry->is_root,
			.certificate = view_of(&entry->certificate),
			.chain = entry->chain,
			.chain_count = entry->chain_count };

		TRY(cas_register(&tx, &source, NULL, err));
	}
	return db_tx_commit(&tx, err);
}

static enum status
register_keys(struct init *init, struct err *err)
{
	own(ca_keystore) keystore = NULL;
	own_struct(secret) kek = { NULL, 0 };

	TRY(ca_keystore_kek(&kek, init->keys_dir, init->ceremony.passphrase, err));
	TRY(ca_keystore_open(&keystore, init->keys_dir, (struct view){ kek.data, kek.len }, err));
	return register_cas(init, keystore, err);
}

static enum status
make_rows(struct init *init, struct err *err)
{
	char standard[CONFIG_TEXT_BYTES + 16];
	struct local_admin_grant grant = { .principal_id = "admin", .action = "admin.create" };
	size_t applied = 0;
	bool made = false;

	TRY(local_database_migrate(&init->config, &applied, err));
	printf("database: %zu migrations applied now\n", applied);
	TRY(register_keys(init, err));
	(void)snprintf(standard, sizeof(standard), "%s/admin.token", init->config.data_dir);
	grant.token_file = init->choice.token_file != NULL ? init->choice.token_file : standard;
	TRY(local_grant_admin(&init->config, &grant, &made, err));
	if (made)
		printf("administrator: principal 'admin' made; its token is in %s\n",
			grant.token_file);
	else
		printf("administrator: principal 'admin' is there\n");
	return OK;
}

int
local_init(int argc, char **argv)
{
	static struct init init;
	struct choice *choice = &init.choice;
	const struct local_option options[] = {
		{ .name = "config",
			.value = "FILE",
			.about = "the configuration",
			.text = &choice->config_path },
		{ .name = "key-type",
			.value = "TYPE",
			.about = "ec-p256 (default), ec-p384, rsa-3072, rsa-4096",
			.text = &choice->key_type },
		{ .name = "organization",
			.value = "NAME",
			.about = "O in the names of the CAs",
			.text = &choice->organization },
		{ .name = "root-key",
			.value = "FILE",
			.about = "seal the root's key into FILE, to be kept elsewhere",
			.text = &choice->root_key },
		{ .name = "external-root",
			.about = "make a CSR for the issuing CA instead of a root",
			.flag = &choice->external_root },
		{ .name = "import",
			.value = "FILE",
			.about = "the certificate that answers that CSR, PEM",
			.text = &choice->import },
		{ .name = "chain",
			.value = "FILE",
			.about = "its issuers up to the root, PEM",
			.text = &choice->chain },
		{ .name = "successor",
			.value = "ID",
			.about = "make the CA that shall succeed the issuing one, and nothing else",
			.text = &choice->successor },
		{ .name = "new-root",
			.value = "ID",
			.about = "with --successor: under a new root, which the old one certifies",
			.text = &choice->new_root },
		{ .name = "new-root-key",
			.value = "FILE",
			.about = "seal that root's key into FILE, to be kept elsewhere",
			.text = &choice->new_root_key },
		{ .name = "token-file",
			.value = "FILE",
			.about = "where the admin's token goes (data_dir/admin.token)",
			.text = &choice->token_file },
		{ .name = "insecure-fast-seal",
			.about = "weak key derivation, for tests and development only",
			.flag = &choice->fast_seal },
		{ .name = NULL },
	};
	enum status status;
	struct err err;
	int exit_status;

	if (!local_options(argc, argv, "jitrca init [OPTION]...",
		    "Makes the CA keys and certificates, the database's schema, and the first "
	            "administrator. What is\n"
		    "there already stays as it is: a second run finishes what the first one could "
	            "not.",
		    options, &exit_status))
		return exit_status;
	status = read_choice(&init, &err);
	if (status == OK)
		status = make_keys(&init, &err);
	if (status == OK && !init.waits && choice->successor == NULL)
		status = make_rows(&init, &err);
	secret_free(&init.passphrase);
	if (status == OK)
		return 0;
	exit_status = local_failed("init", &err);
	return view_equal_text(view_text(err.code), "usage") ? EXIT_MISUSED : exit_status;
}
