#!/bin/sh
# cluster.sh COMMAND …: runs COMMAND beside a PostgreSQL cluster of its own, which is gone afterwards.
# The cluster listens on a socket in its own directory only. COMMAND finds, in its environment,
#   JITRCA_TEST_DATABASE_URL     a libpq connection string, of a superuser
#   JITRCA_TEST_CLUSTER_RESTART  a program that restarts the cluster and waits until it answers
set -eu

bin=$(pg_config --bindir 2>/dev/null || true)
if [ ! -x "$bin/initdb" ]; then
	bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
fi
[ -x "$bin/initdb" ] || { echo "cluster.sh: PostgreSQL's initdb is not there" >&2; exit 1; }

# PostgreSQL refuses to be root.
as=
[ "$(id -u)" -ne 0 ] || as="setpriv --reuid=postgres --regid=postgres --clear-groups"

dir=$(mktemp -d "${TMPDIR:-/tmp}/jitrca-db.XXXXXX")
child=
end() {
	status=$?
	trap - EXIT INT TERM HUP
	[ -z "$child" ] || kill "$child" 2>/dev/null || true
	[ ! -f "$dir/data/postmaster.pid" ] || $as "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null || true
	rm -rf "$dir"
	exit "$status"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

[ -z "$as" ] || chown postgres: "$dir"
cd "$dir"
if ! $as "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$dir/initdb.log" 2>&1; then
	cat "$dir/initdb.log" >&2
	exit 1
fi
cat >>"$dir/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$dir'
max_connections = 60
fsync = off
full_page_writes = off
synchronous_commit = off
autovacuum_naptime = 1h
CONF

cat >"$dir/restart" <<RESTART
#!/bin/sh
cd "$dir" && exec $as "$bin/pg_ctl" -D "$dir/data" -w -t 60 -m fast -l "$dir/log" "\${1:-restart}" >/dev/null
RESTART
chmod 755 "$dir/restart"
if ! "$dir/restart" start; then
	cat "$dir/log" >&2
	exit 1
fi
cd "$OLDPWD"

JITRCA_TEST_DATABASE_URL="host=$dir port=${PGPORT:-5432} user=postgres dbname=postgres"
JITRCA_TEST_CLUSTER_RESTART="$dir/restart"
export JITRCA_TEST_DATABASE_URL JITRCA_TEST_CLUSTER_RESTART

# In the background, so that a signal is not kept waiting until the command ends.
"$@" &
child=$!
wait "$child" && status=0 || status=$?
child=
exit "$status"
