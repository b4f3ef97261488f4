/*
 * server/signer/main.h - the signer process: `jitrca signer`, started by the supervisor only.
 * Takes its hand-over (server/process.h), loads profiles and keys, confines itself, then only signs on
 * SIGNER_ISSUE_FD and SIGNER_CRL_FD. Ends when the control socket or either channel does: a stream that
 * broke in the middle cannot be used by another frontend, so the supervisor makes both anew.
 */
#ifndef SERVER_SIGNER_MAIN_H
#define SERVER_SIGNER_MAIN_H

/* The exit status: 0; PROCESS_EXIT_CONFIG when keys or profiles cannot be used; 1 otherwise. */
int signer_main(int argc, char **argv);

#endif
