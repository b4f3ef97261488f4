/*
 * server/frontend.h - the process that talks to the network and the database: `jitrca frontend`,
 * started by the supervisor only. Builds struct app, starts its parts, waits for signals.
 */
#ifndef SERVER_FRONTEND_H
#define SERVER_FRONTEND_H

/* The exit status: 0; PROCESS_EXIT_CONFIG when a restart cannot help; 1 otherwise. */
int frontend_main(int argc, char **argv);

#endif
