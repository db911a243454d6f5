/* Incremental SHA-256 (FIPS 180-4). */
#ifndef TINYFL_SHA256_H
#define TINYFL_SHA256_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TINYFL_SHA256_BYTES 32

typedef struct {
    uint32_t state[8];
    uint64_t count; /* bytes so far */
    uint8_t block[64];
} tinyfl_sha256;

void tinyfl_sha256_start(tinyfl_sha256 *hash);
void tinyfl_sha256_add(tinyfl_sha256 *hash, const void *bytes, size_t count);
void tinyfl_sha256_end(tinyfl_sha256 *hash, uint8_t digest[TINYFL_SHA256_BYTES]);

/* In one call. */
void tinyfl_sha256_of(const void *bytes, size_t count, uint8_t digest[TINYFL_SHA256_BYTES]);

#ifdef __cplusplus
}
#endif

#endif
