/*
 * ca/algorithm.h - what the algorithms of a certificate are called, for inventories: its key's by kind and
 * size, its signature's by the names of RFC 3279, 5758 and 8410. Reads only what names them: whether a key is
 * sound is ca/spki.h's affair. What is not listed is called by its OID, what cannot be read "unreadable".
 * Safe from any thread.
 */
#ifndef CA_ALGORITHM_H
#define CA_ALGORITHM_H

#include <stddef.h>

#include "base/bytes.h"

#define CA_ALGORITHM_BYTES 48

/* Of a SubjectPublicKeyInfo: "ec-p256", "rsa-2048", "ed25519", as profiles have them; any size of RSA. */
void ca_algorithm_of_key(char out[CA_ALGORITHM_BYTES], struct view spki);
/* Of an AlgorithmIdentifier: "ecdsa-with-SHA256", "sha256WithRSAEncryption". */
void ca_algorithm_of_signature(char out[CA_ALGORITHM_BYTES], struct view algorithm);

#endif
