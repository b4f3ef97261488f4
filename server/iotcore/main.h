/*
 * server/iotcore/main.h - `jitrca iotcore`: the local IoT Core's control plane as a process of its own
 * (docs/local-iot-core.md). It shares with the server the database, the HTTP room and the log's form, nothing
 * else. SIGTERM finishes what is in flight.
 */
#ifndef SERVER_IOTCORE_MAIN_H
#define SERVER_IOTCORE_MAIN_H

/* The exit status: 0; PROCESS_EXIT_CONFIG when a restart cannot help; 1 otherwise. */
int local_iotcore(int argc, char **argv);

#endif
