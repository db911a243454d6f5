/* Decodes the vectors of a file: codec FILE. Each is in a block of its own size, for the sanitizer. Prints for each the CRC of its
 * values; a refused one must leave them as they were. Decoding in place must give the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec.h"

static uint32_t crc32_of(const void *bytes, size_t count)
{
    uint32_t crc = ~0u;
    for (const uint8_t *b = bytes; count--; b++) {
        crc ^= *b;
        for (int i = 0; i < 8; i++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static void *read_block(FILE *file, size_t count)
{
    uint8_t *block = malloc(count ? count : 1);
    if (!block || fread(block, 1, count, file) != count)
        abort();
    return block;
}

/* Decodes in a block of just the weights; not for top P %, whose bytes may be more. */
static int same_in_place(const tinyfl_codec *codec, const tinyfl_plan *plan, const void *data, uint32_t bytes, int code,
                         const float *values, size_t weights)
{
    if (codec->kind == TINYFL_CODEC_TOP || bytes > weights * sizeof *values)
        return 1;
    float *place = malloc(weights * sizeof *place);
    if (!place)
        abort();
    memcpy(place, data, bytes);
    const int here = tinyfl_decode_in_place(codec, plan, TINYFL_EVERY_LAYER, place, bytes);
    const int same = here == code && (code == TINYFL_OK ? memcmp(place, values, weights * sizeof *place) : memcmp(place, data, bytes)) == 0;
    free(place);
    return same;
}

int main(int count, char **arguments)
{
    FILE *file = count > 1 ? fopen(arguments[1], "rb") : NULL;
    uint32_t bytes;
    tinyfl_plan plan;
    if (!file || fread(&bytes, sizeof bytes, 1, file) != 1)
        abort();
    void *record = read_block(file, bytes);
    if (tinyfl_plan_read(&plan, record, bytes) != TINYFL_OK)
        abort();
    const size_t weights = tinyfl_plan_weights(&plan);
    float *values = calloc(weights, sizeof *values), *zeros = calloc(weights, sizeof *zeros);
    uint8_t head[8];
    while (fread(head, sizeof head, 1, file) == 1) {
        const tinyfl_codec codec = {head[0], (uint16_t)(head[2] | head[3] << 8)};
        memcpy(&bytes, head + 4, sizeof bytes);
        uint8_t *data = read_block(file, bytes);
        memset(values, 0, weights * sizeof *values);
        if (tinyfl_codec_check(&codec) != TINYFL_OK)
            abort();
        const int code = tinyfl_decode(&codec, &plan, TINYFL_EVERY_LAYER, data, bytes, 1.0f, values);
        if (!same_in_place(&codec, &plan, data, bytes, code, values, weights))
            puts("other in place");
        else if (code == TINYFL_OK)
            printf("0 %08x\n", crc32_of(values, weights * sizeof *values));
        else
            puts(memcmp(values, zeros, weights * sizeof *values) == 0 ? "refused" : "refused, but changed");
        free(data);
    }
    free(record);
    free(values);
    free(zeros);
    return fclose(file);
}
