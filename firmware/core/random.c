#include "real.h"

TINYFL_INLINE void mix(tinyfl_word *a, tinyfl_word *b, int rotation)
{
    *a += *b;
    *b = (*b << rotation) | (*b >> (32 - rotation));
    *b ^= *a;
}

/* Threefry-4x32: rounds of add, rotate and exclusive or, with the key added in after every fourth. */
TINYFL_API void tinyfl_random(uint64_t seed, uint32_t stream, tinyfl_word device, uint32_t round, uint32_t index,
                              tinyfl_word out[4])
{
    static const uint8_t rotations[8][2] = {{10, 26}, {11, 21}, {13, 27}, {23, 5}, {6, 20}, {17, 11}, {25, 10}, {18, 20}};
    const uint32_t key[5] = {(uint32_t)seed, (uint32_t)(seed >> 32), stream, 0,
                             0x1bd11bdau ^ (uint32_t)seed ^ (uint32_t)(seed >> 32) ^ stream};
    tinyfl_word x0 = word_of(index + key[0]), x1 = word_of(round + key[1]), x2 = device + key[2], x3 = word_of(key[3]);

    TINYFL_UNROLL
    for (uint32_t block = 0; block < 5; block++) {
        TINYFL_UNROLL
        for (uint32_t i = 0; i < 4; i++) {
            const uint8_t *r = rotations[(4 * block + i) % 8];
            if (i % 2 == 0) {
                mix(&x0, &x1, r[0]);
                mix(&x2, &x3, r[1]);
            } else {
                mix(&x0, &x3, r[0]);
                mix(&x2, &x1, r[1]);
            }
        }
        x0 += key[(block + 1) % 5];
        x1 += key[(block + 2) % 5];
        x2 += key[(block + 3) % 5];
        x3 += key[(block + 4) % 5] + block + 1;
    }
    out[0] = x0;
    out[1] = x1;
    out[2] = x2;
    out[3] = x3;
}

TINYFL_API tinyfl_real tinyfl_uniform(tinyfl_word bits) { return uniform(bits); }
