/*
 * server/cli/doctor.h - `jitrca doctor`: what is wrong, or will be, and what to do about it. What can be seen
 * from this machine is checked here, with or without a server; the rest is asked of the server
 * (GET /v1/doctor). Exit status: server/doctor.h; 64 (EX_USAGE) when it is misused, for 2 says that something
 * is broken.
 */
#ifndef SERVER_CLI_DOCTOR_H
#define SERVER_CLI_DOCTOR_H

#include "server/config.h"
#include "server/doctor.h"

int local_doctor(int argc, char **argv);

/*
 * Configuration, files and their modes, CAs, disk, clock, database. *config is filled when it could be read
 * (true): the way to the server is in it.
 */
MUST_USE bool doctor_look_around(struct doctor *doctor, const char *config_path, struct config *config);

#endif
