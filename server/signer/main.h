/*
 * server/signer/main.h - the signer process: `jitrca signer`, started by the supervisor only.
 * Takes its hand-over (server/process.h), loads profiles and keys, confines itself, then only signs on
 * SIGNER_ISSUE_FD, SIGNER_CRL_FD, SIGNER_FULL_FD and SIGNER_OCSP_FD. Ends when the control socket does, or
 * one of the channels: whoever lost one of them can only be helped by a fresh signer.
 */
#ifndef SERVER_SIGNER_MAIN_H
#define SERVER_SIGNER_MAIN_H

/* The exit status: 0; PROCESS_EXIT_CONFIG when keys or profiles cannot be used; 1 otherwise. */
int signer_main(int argc, char **argv);

#endif
