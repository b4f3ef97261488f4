/* server/cli/notify.h - `jitrca notify test CHANNEL`: asks for a test message and waits for the outcome. */
#ifndef SERVER_CLI_NOTIFY_H
#define SERVER_CLI_NOTIFY_H

/* argv[0] is "notify"; what is not `test` goes the way of the other groups. The program's exit code. */
int notify_cli_main(int argc, char **argv);

#endif
