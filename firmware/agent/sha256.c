#include "sha256.h"

#include <string.h>

static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotated(uint32_t x, int by) { return x >> by | x << (32 - by); }

static void compress(uint32_t state[8], const uint8_t block[64])
{
    uint32_t w[16];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (uint32_t t = 0; t < 64; t++) {
        /* The message schedule needs only its last 16 words. */
        uint32_t *word = &w[t & 15];
        if (t < 16) {
            const uint8_t *bytes = block + 4 * t;
            *word = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
        } else {
            const uint32_t near = w[(t + 14) & 15], far = w[(t + 1) & 15];
            *word += w[(t + 9) & 15] + (rotated(near, 17) ^ rotated(near, 19) ^ near >> 10) +
                     (rotated(far, 7) ^ rotated(far, 18) ^ far >> 3);
        }
        const uint32_t one = h + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + (g ^ (e & (f ^ g))) + constants[t] + *word;
        const uint32_t two = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) | (c & (a | b)));
        h = g, g = f, f = e, e = d + one;
        d = c, c = b, b = a, a = one + two;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

void tinyfl_sha256_start(tinyfl_sha256 *hash)
{
    *hash = (tinyfl_sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab,
                                      0x5be0cd19}};
}

void tinyfl_sha256_add(tinyfl_sha256 *hash, const void *bytes, size_t count)
{
    const uint8_t *from = bytes;
    size_t filled = hash->count % sizeof hash->block;
    hash->count += count;
    while (count > 0) {
        if (filled == 0 && count >= sizeof hash->block) {
            compress(hash->state, from);
            from += sizeof hash->block;
            count -= sizeof hash->block;
            continue;
        }
        const size_t room = sizeof hash->block - filled, taken = count < room ? count : room;
        memcpy(hash->block + filled, from, taken);
        from += taken;
        count -= taken;
        filled += taken;
        if (filled == sizeof hash->block) {
            compress(hash->state, hash->block);
            filled = 0;
        }
    }
}

void tinyfl_sha256_end(tinyfl_sha256 *hash, uint8_t digest[TINYFL_SHA256_BYTES])
{
    const uint64_t bits = hash->count * 8;
    size_t filled = hash->count % sizeof hash->block;
    hash->block[filled++] = 0x80;
    if (filled > 56) {
        memset(hash->block + filled, 0, sizeof hash->block - filled);
        compress(hash->state, hash->block);
        filled = 0;
    }
    memset(hash->block + filled, 0, 56 - filled);
    for (int i = 0; i < 8; i++)
        hash->block[56 + i] = (uint8_t)(bits >> (56 - 8 * i));
    compress(hash->state, hash->block);
    for (int i = 0; i < 32; i++)
        digest[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
}

void tinyfl_sha256_of(const void *bytes, size_t count, uint8_t digest[TINYFL_SHA256_BYTES])
{
    tinyfl_sha256 hash;
    tinyfl_sha256_start(&hash);
    tinyfl_sha256_add(&hash, bytes, count);
    tinyfl_sha256_end(&hash, digest);
}
