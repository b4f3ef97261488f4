#include "server/cli/dev.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "ca/file.h"
#include "server/cli/local.h"

#define PORT_BASE_STANDARD 8440
#define PORT_HTTP 0
#define PORT_HTTPS 3
#define PORT_STATIONS 4
#define PORT_CORE 10
#define PORT_BROKER 13
#define PORT_LAST PORT_BROKER
#define STATION "demo-station"
#define READY_LIMIT_MS 60000
#define STOP_LIMIT_MS 30000

struct dev {
	char dir[DEV_PATH_BYTES];
	char self[DEV_PATH_BYTES];
	char profiles[DEV_PATH_BYTES];
	char config_path[DEV_PATH_BYTES + 16];
	int port_base;
	struct config config;
	struct dev_postgres postgres;
	struct dev_iot iot;
	pid_t serve;
	int signals, notify;
	bool stopping;
};

static void
path_in(char *out, size_t size, const struct dev *dev, const char *name)
{
	(void)snprintf(out, size, "%s/%s", dev->dir, name);
}

/* ---- places and ports ---- */

static enum status
make_dirs(struct dev *dev, const char *dir, struct err *err)
{
	char real[PATH_MAX];

	/* "var/dev": the folder above may be missing as well. */
	if (strcmp(dir, "var/dev") == 0 && mkdir("var", 0755) != 0 && errno != EEXIST)
		return err_set(err, ERR_UNAVAILABLE, "directory", "var: %s", strerror(errno));
	TRY(directory_make(dir, err));
	if (realpath(dir, real) == NULL)
		return err_set(err, ERR_UNAVAILABLE, "directory", "%s: %s", dir, strerror(errno));
	if (strlen(real) >= sizeof(dev->dir) - 64)
		return err_set(err, ERR_UNAVAILABLE, "directory", "%s: its path is too long", dir);
	memcpy(dev->dir, real, strlen(real) + 1);
	/* Others pass through (the database's user), they do not look around. */
	if (chmod(dev->dir, 0711) != 0)
		return err_set(
			err, ERR_UNAVAILABLE, "directory", "%s: %s", dev->dir, strerror(errno));
	return OK;
}

/* certs/ of the source tree, or where `make install` puts them. */
static enum status
find_profiles(struct dev *dev, struct err *err)
{
	static const char *const PLACES[] = { "certs", "/usr/local/share/jitrca/certs",
		"/usr/share/jitrca/certs" };

	for (size_t i = 0; i < COUNT_OF(PLACES); i++) {
		char real[PATH_MAX];

		if (realpath(PLACES[i], real) == NULL || strlen(real) >= sizeof(dev->profiles))
			continue;
		memcpy(dev->profiles, real, strlen(real) + 1);
		return OK;
	}
	return err_set(err, ERR_NOT_FOUND, "profiles_missing",
		"no certificate profiles: run it where certs/ is, or use make install");
}

/* Held until the end, also by a kill -9's: the kernel lets go of it. */
static enum status
lock(const struct dev *dev, struct err *err)
{
	char path[DEV_PATH_BYTES + 16];
	char pid[32] = "";
	int fd;

	path_in(path, sizeof(path), dev, "lock");
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(err, ERR_UNAVAILABLE, "file_write", "%s: %s", path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		ssize_t len = read(fd, pid, sizeof(pid) - 1);

		pid[len > 0 ? len : 0] = '\0';
		return err_set(err, ERR_CONFLICT, "dev_running",
			"another `jitrca dev` runs on %s (process %s); end it first", dev->dir,
			pid);
	}
	(void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
	if (ftruncate(fd, 0) != 0 || write(fd, pid, strlen(pid)) < 0)
		return err_set(err, ERR_UNAVAILABLE, "file_write", "%s: %s", path, strerror(errno));
	return OK; /* fd stays open */
}

static enum status
read_port_base(struct dev *dev, struct err *err)
{
	const char *text = getenv("JITRCA_PORT_BASE");
	char *end = NULL;
	long value = PORT_BASE_STANDARD;

	if (text != NULL && text[0] != '\0')
		value = strtol(text, &end, 10);
	if ((end != NULL && *end != '\0') || value < 1 || value > 65535 - PORT_LAST)
		return err_set(err, ERR_ARGUMENT, "port_base",
			"JITRCA_PORT_BASE: 1 to %d wanted, '%s' found", 65535 - PORT_LAST,
			text);
	dev->port_base = (int)value;
	return OK;
}

static enum status
check_port(const struct dev *dev, int offset, const char *what, struct err *err)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)(dev->port_base + offset)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const int one = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool free_now;

	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	free_now = bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
	           listen(fd, 1) == 0;
	(void)close(fd);
	if (free_now)
		return OK;
	return err_set(err, ERR_CONFLICT, "port_taken",
		"port %d (%s) is taken; choose others: JITRCA_PORT_BASE=%d make run",
		dev->port_base + offset, what,
		dev->port_base < 50000 ? dev->port_base + 1000 : PORT_BASE_STANDARD);
}

bool
dev_port_answers(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool answers = fd >= 0 &&
	               connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0;

	if (fd >= 0)
		(void)close(fd);
	return answers;
}

static enum status
check_ports(const struct dev *dev, struct err *err)
{
	TRY(check_port(dev, PORT_HTTP, "plain HTTP", err));
	TRY(check_port(dev, PORT_HTTPS, "HTTPS for devices", err));
	TRY(check_port(dev, PORT_STATIONS, "HTTPS for stations", err));
	TRY(check_port(dev, PORT_CORE, "the local IoT Core", err));
	return check_port(dev, PORT_BROKER, "MQTT", err);
}

/* ---- files ---- */

/* Replaces path by text, mode 0600. */
static enum status
write_file(const char *path, const char *text, struct err *err)
{
	(void)unlink(path);
	return file_create(path, view_text(text), 0600, err);
}

static enum status
write_passphrase(const struct dev *dev, struct err *err)
{
	char path[DEV_PATH_BYTES + 16];
	char text[TOKEN_TEXT_BYTES];

	path_in(path, sizeof(path), dev, "passphrase");
	if (file_exists(path))
		return OK;
	TRY(token_draw(text, err));
	return write_file(path, text, err);
}

static enum status
write_config(struct dev *dev, struct err *err)
{
	char text[8 * DEV_PATH_BYTES];

	path_in(dev->config_path, sizeof(dev->config_path), dev, "jitrca.conf");
	(void)snprintf(text, sizeof(text),
		"# Written by `jitrca dev` at each start.\n"
		"database_url = %s\ndata_dir = %s/data\nprofiles_dir = %s\npassphrase_file = "
	        "%s/passphrase\n"
		"public_url = https://127.0.0.1:%d\npublic_http_url = http://127.0.0.1:%d\n"
		"https = 127.0.0.1:%d\nstations = 127.0.0.1:%d\nhttp = 127.0.0.1:%d\n"
		"server_names = localhost,127.0.0.1\n"
		"iot_targets_file = %s/iot-targets.json\n"
		"iotcore_listen = 127.0.0.1:%d\niotcore_endpoint = localhost:%d\n"
		"iotcore_account = " DEV_IOT_ACCOUNT "\niotcore_region = " DEV_IOT_REGION "\n"
		"iotcore_credentials_file = %s/iotcore.keys\n",
		dev->postgres.url, dev->dir, dev->profiles, dev->dir,
		dev->port_base + PORT_STATIONS, dev->port_base + PORT_HTTP,
		dev->port_base + PORT_HTTPS, dev->port_base + PORT_STATIONS,
		dev->port_base + PORT_HTTP, dev->dir, dev->port_base + PORT_CORE,
		dev->port_base + PORT_BROKER, dev->dir);
	TRY(write_file(dev->config_path, text, err));
	return config_load(&dev->config, dev->config_path, err);
}

static enum status
read_token(struct secret *out, const struct dev *dev, const char *name, struct err *err)
{
	char path[DEV_PATH_BYTES + 32];

	path_in(path, sizeof(path), dev, name);
	return secret_read_file(out, path, 256, err);
}

static enum status
write_env(const struct dev *dev, struct err *err)
{
	own_struct(secret) admin = { NULL, 0 };
	own_struct(secret) station = { NULL, 0 };
	char path[DEV_PATH_BYTES + 16];
	char text[8 * DEV_PATH_BYTES];
	enum status status;

	TRY(read_token(&admin, dev, "data/admin.token", err));
	TRY(read_token(&station, dev, "station.token", err));
	(void)snprintf(text, sizeof(text),
		"export JITRCA_URL='https://127.0.0.1:%d'\n"
		"export JITRCA_HTTP_URL='http://127.0.0.1:%d'\n"
		"export JITRCA_CA_BUNDLE='%s/data/keys/root.crt'\n"
		"export JITRCA_ADMIN_TOKEN='%.*s'\n"
		"export JITRCA_STATION_TOKEN='%.*s'\n"
		"export JITRCA_DATABASE_URL='%s'\n"
		"export IOTCORE_ENDPOINT_URL='http://127.0.0.1:%d'\n"
		"export AWS_REGION='" DEV_IOT_REGION "'\n"
		"export AWS_DEFAULT_REGION='" DEV_IOT_REGION "'\n"
		"export AWS_ACCESS_KEY_ID='%s'\n"
		"export AWS_SECRET_ACCESS_KEY='%s'\n"
		"export MQTT_HOST='localhost'\n"
		"export MQTT_PORT='%d'\n"
		"export MQTT_CA_BUNDLE='%s/data/keys/root.crt'\n",
		dev->port_base + PORT_STATIONS, dev->port_base + PORT_HTTP, dev->dir,
		(int)admin.len, (const char *)admin.data, (int)station.len,
		(const char *)station.data, dev->postgres.url, dev->port_base + PORT_CORE,
		dev->iot.access_key, dev->iot.secret_key, dev->port_base + PORT_BROKER, dev->dir);
	path_in(path, sizeof(path), dev, "env");
	status = write_file(path, text, err);
	explicit_bzero(text, sizeof(text));
	return status;
}

/* ---- the steps ---- */

static enum status
run_init(const struct dev *dev, struct err *err)
{
	const char *const argv[] = { dev->self, "init", "--config", dev->config_path,
		"--organization", "Development", NULL };
	const struct dev_program program = { .argv = argv };

	(void)fflush(stdout);
	return dev_run(&program, err);
}

static enum status
make_station(const struct dev *dev, struct err *err)
{
	char path[DEV_PATH_BYTES + 16];
	bool made = false;

	path_in(path, sizeof(path), dev, "station.token");
	TRY(local_grant_demo_station(&dev->config, STATION, path, &made, err));
	printf("station: '" STATION "' %s; it may issue for device-1 to device-1000\n",
		made ? "made" : "is there");
	return OK;
}

/* serve tells us that it is ready as it would tell systemd. */
static enum status
open_notify(struct dev *dev, struct err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int len;

	dev->notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	/* An abstract name, which needs no file and ends with us. */
	len = snprintf(
		address.sun_path + 1, sizeof(address.sun_path) - 1, "jitrca-dev-%d", (int)getpid());
	if (dev->notify < 0 ||
		bind(dev->notify, (const struct sockaddr *)&address,
			(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len)) != 0)
		return err_set(
			err, ERR_UNAVAILABLE, "dev_program", "notify socket: %s", strerror(errno));
	address.sun_path[0] = '@';
	if (setenv("NOTIFY_SOCKET", address.sun_path, 1) != 0)
		return err_memory(err);
	return OK;
}

static enum status
start_serve(struct dev *dev, struct err *err)
{
	const char *const argv[] = { dev->self, "serve", "--config", dev->config_path, NULL };
	const struct dev_program program = { .argv = argv, .end_with = SIGTERM, .own_group = true };

	(void)fflush(stdout);
	return dev_spawn(&program, &dev->serve, err);
}

/* What ended, if it was one of ours that should run. */
static enum status
check_children(struct dev *dev, struct err *err)
{
	if (dev->serve > 0 && waitpid(dev->serve, NULL, WNOHANG) == dev->serve) {
		dev->serve = 0;
		return err_set(err, ERR_UNAVAILABLE, "dev_program", "the server has ended");
	}
	if (dev->postgres.pid > 0 &&
		waitpid(dev->postgres.pid, NULL, WNOHANG) == dev->postgres.pid) {
		dev->postgres.pid = 0;
		return err_set(err, ERR_UNAVAILABLE, "dev_program",
			"PostgreSQL has ended; see %s/log", dev->postgres.dir);
	}
	return dev_iot_check(&dev->iot, err);
}

/* Until something happens. *ready becomes true when serve says so. */
static enum status
attend(struct dev *dev, int wait_ms, bool *ready, struct err *err)
{
	struct pollfd polled[] = { { .fd = dev->signals, .events = POLLIN },
		{ .fd = dev->notify, .events = POLLIN } };
	struct signalfd_siginfo info;
	char text[128];
	ssize_t len;

	if (poll(polled, COUNT_OF(polled), wait_ms) < 0 && errno != EINTR)
		return err_set(err, ERR_INTERNAL, "internal", "poll: %s", strerror(errno));
	while (read(dev->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
		if (info.ssi_signo != SIGCHLD)
			dev->stopping = true;
	if ((polled[1].revents & POLLIN) != 0) {
		len = recv(dev->notify, text, sizeof(text) - 1, MSG_DONTWAIT);
		text[len > 0 ? len : 0] = '\0';
		*ready |= strstr(text, "READY=1") != NULL;
	}
	return check_children(dev, err);
}

static enum status
wait_serve(struct dev *dev, struct err *err)
{
	int64_t end_us = clock_mono_us() + INT64_C(1000) * READY_LIMIT_MS;
	bool ready = false;

	while (!ready && !dev->stopping) {
		int64_t left_ms = (end_us - clock_mono_us()) / 1000;

		if (left_ms <= 0)
			return err_set(err, ERR_UNAVAILABLE, "dev_program",
				"the server was not ready in time");
		TRY(attend(dev, (int)left_ms, &ready, err));
	}
	return OK;
}

static void
print_next(const struct dev *dev)
{
	printf("\njitrca is ready.  Stations and administrators: https://127.0.0.1:%d  devices: "
	       "https://127.0.0.1:%d"
	       "\n                  CRLs and health: http://127.0.0.1:%d"
	       "\n                  IoT Core: http://127.0.0.1:%d  MQTT: localhost:%d\n\n"
	       "In another terminal:\n\n"
	       "  . %s/env\n"
	       "  curl \"$JITRCA_HTTP_URL/readyz\"\n\n"
	       "  # a first certificate, as a station\n"
	       "  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "
	       "/CN=device-1 \\\n"
	       "    -keyout device-1.key -out device-1.csr\n"
	       "  curl --cacert \"$JITRCA_CA_BUNDLE\" -H \"Authorization: Bearer "
	       "$JITRCA_STATION_TOKEN\" \\\n"
	       "    -H 'Content-Type: application/json' -H 'Idempotency-Key: order-1/device-1' \\\n"
	       "    -d \"{\\\"device_id\\\": \\\"device-1\\\", \\\"csr\\\": \\\"$(awk '{printf "
	       "\"%%s\\\\n\", $0}' device-1.csr)\\\"}\" \\\n"
	       "    \"$JITRCA_URL/v1/certificates\"\n\n"
	       "  # what was issued, as an administrator\n"
	       "  curl --cacert \"$JITRCA_CA_BUNDLE\" -H \"Authorization: Bearer "
	       "$JITRCA_ADMIN_TOKEN\" \\\n"
	       "    \"$JITRCA_URL/v1/certificates?device_id=device-1\"\n\n"
	       "  # its first connection, to the local IoT Core: refused and registered; active a "
	       "moment later\n"
	       "  # (device-1.crt: the certificate and chain of the answer above)\n"
	       "  aws iot list-things --endpoint-url \"$IOTCORE_ENDPOINT_URL\"\n\n"
	       "  # the revocation list\n"
	       "  curl \"$JITRCA_HTTP_URL/crl/%s.crl\" | openssl crl -inform DER -noout -text\n\n"
	       "Ctrl-C stops everything; a second run goes on with the same state.\n\n",
		dev->port_base + PORT_STATIONS, dev->port_base + PORT_HTTPS,
		dev->port_base + PORT_HTTP, dev->port_base + PORT_CORE,
		dev->port_base + PORT_BROKER, dev->dir, dev->config.issuing_ca);
	(void)fflush(stdout);
}

static enum status
catch_signals(struct dev *dev, struct err *err)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
		return err_set(err, ERR_INTERNAL, "internal", "sigprocmask: %s", strerror(errno));
	dev->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (dev->signals < 0)
		return err_set(err, ERR_INTERNAL, "internal", "signalfd: %s", strerror(errno));
	return OK;
}

static enum status
prepare(struct dev *dev, const char *dir, struct err *err)
{
	ssize_t len = readlink("/proc/self/exe", dev->self, sizeof(dev->self) - 1);

	if (len <= 0)
		return err_set(
			err, ERR_INTERNAL, "internal", "/proc/self/exe: %s", strerror(errno));
	/* A sourced env of another stack must not lead this one to its database. */
	(void)unsetenv("JITRCA_DATABASE_URL");
	TRY(ca_init(err));
	TRY(read_port_base(dev, err));
	TRY(make_dirs(dev, dir, err));
	TRY(find_profiles(dev, err));
	TRY(lock(dev, err));
	TRY(check_ports(dev, err));
	return catch_signals(dev, err);
}

/* What our own command line needs to be an administrator. */
static enum status
point_client(const struct dev *dev, struct err *err)
{
	char url[64];
	char bundle[DEV_FILE_BYTES];

	(void)snprintf(url, sizeof(url), "https://127.0.0.1:%d", dev->port_base + PORT_STATIONS);
	path_in(bundle, sizeof(bundle), dev, "data/keys/root.crt");
	(void)unsetenv("JITRCA_ADMIN_TOKEN");
	if (setenv("JITRCA_URL", url, 1) != 0 || setenv("JITRCA_CA_BUNDLE", bundle, 1) != 0)
		return err_memory(err);
	return OK;
}

/* Serve first: it signs what the broker shows, and waits for both by itself. */
static enum status
start_iot(struct dev *dev, struct err *err)
{
	TRY(point_client(dev, err));
	TRY(dev_iot_start_broker(&dev->iot, err));
	return dev_iot_register_ca(&dev->iot, err);
}

static enum status
start(struct dev *dev, struct err *err)
{
	char path[DEV_PATH_BYTES + 16];

	path_in(path, sizeof(path), dev, "postgres");
	TRY(dev_postgres_start(&dev->postgres, path, err));
	dev->iot = (struct dev_iot){ .dir = dev->dir, .self = dev->self,
		.config_path = dev->config_path, .database_url = dev->postgres.url,
		.ca_id = dev->config.issuing_ca, .port_core = dev->port_base + PORT_CORE,
		.port_broker = dev->port_base + PORT_BROKER };
	TRY(write_passphrase(dev, err));
	TRY(dev_iot_prepare(&dev->iot, err));
	TRY(write_config(dev, err));
	TRY(run_init(dev, err));
	TRY(make_station(dev, err));
	TRY(write_env(dev, err));
	TRY(open_notify(dev, err));
	TRY(dev_iot_start_core(&dev->iot, err));
	TRY(start_serve(dev, err));
	TRY(wait_serve(dev, err));
	return dev->stopping ? OK : start_iot(dev, err);
}

static enum status
run(struct dev *dev, struct err *err)
{
	bool ready = false;

	TRY(start(dev, err));
	if (!dev->stopping)
		print_next(dev);
	while (!dev->stopping)
		TRY(attend(dev, -1, &ready, err));
	return OK;
}

int
local_dev(int argc, char **argv)
{
	static struct dev dev = { .signals = -1, .notify = -1 };
	const char *dir = "var/dev";
	const struct local_option options[] = {
		{ .name = "dir",
			.value = "DIR",
			.about = "where everything is kept (var/dev)",
			.text = &dir },
		{ .name = NULL },
	};
	enum status status;
	struct err err;
	int exit_status;

	if (!local_options(argc, argv, "jitrca dev [--dir DIR]",
		    "Runs a whole stack for development in the foreground: a private PostgreSQL "
	            "cluster on a Unix\n"
		    "socket, a CA, the server, a demo station, the local IoT Core and its broker, "
	            "the CA registered\n"
		    "there. JITRCA_PORT_BASE (8440) moves its ports: plain HTTP +0, devices +3, "
	            "stations +4,\n"
		    "IoT Core +10, MQTT +13.",
		    options, &exit_status))
		return exit_status;
	status = prepare(&dev, dir, &err);
	if (status == OK)
		status = run(&dev, &err);
	dev_end(&dev.serve, SIGTERM, STOP_LIMIT_MS);
	dev_iot_stop(&dev.iot);
	dev_postgres_stop(&dev.postgres);
	if (status != OK)
		return local_failed("dev", &err);
	printf("stopped\n");
	return 0;
}
