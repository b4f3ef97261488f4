/*
 * ca/openssl.h - owners for OpenSSL's types, and the one reader of its errors.
 */
#ifndef CA_OPENSSL_H
#define CA_OPENSSL_H

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>

#include "base/attr.h"
#include "base/err.h"

OWNER(BIGNUM, BN_clear_free)
OWNER(EC_GROUP, EC_GROUP_free)
OWNER(EVP_MD, EVP_MD_free)
OWNER(EVP_MD_CTX, EVP_MD_CTX_free)
OWNER(EVP_PKEY, EVP_PKEY_free)
OWNER(EVP_PKEY_CTX, EVP_PKEY_CTX_free)
OWNER(OSSL_PARAM, OSSL_PARAM_free)
OWNER(OSSL_PARAM_BLD, OSSL_PARAM_BLD_free)
OWNER(PKCS8_PRIV_KEY_INFO, PKCS8_PRIV_KEY_INFO_free)

/*
 * Fills err as ERR_INTERNAL (openssl), or ERR_UNAVAILABLE (out_of_memory) when OpenSSL says so: the
 * text is yours and the first reason of OpenSSL's queue. Further reasons go to the log at debug. The
 * queue is empty afterwards. Returns the status.
 */
enum status err_openssl(struct err *err, const char *fmt, ...) PRINTF(2, 3);
#define err_openssl(...) err_failed(err_openssl(__VA_ARGS__))
/* For calls whose failure is an answer (a bad signature): empties the queue without a word. */
void openssl_errors_drop(void);

#endif
