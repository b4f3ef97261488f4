/*
 * server/supervisor.h - `jitrca serve`: reads the configuration, binds the sockets, keeps the
 * key-encryption key, starts signer and frontend and starts them anew when they end (design: Processes).
 * Parses nothing that comes from the network. One thread.
 */
#ifndef SERVER_SUPERVISOR_H
#define SERVER_SUPERVISOR_H

/* Runs until SIGTERM or SIGINT; the exit status. config_path may be NULL. SIGHUP reads it again. */
int supervisor_run(const char *config_path);

#endif
