/* The part of CBOR (RFC 8949) that SMP needs: reads a map by its keys, and writes one. */
#ifndef TINYFL_CBOR_H
#define TINYFL_CBOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A map in memory. Read only maps accepted by tinyfl_map_check. */
typedef struct {
    const uint8_t *bytes;
    size_t count;
} tinyfl_map;

/* A string in a map. */
typedef struct {
    const uint8_t *bytes;
    size_t count;
} tinyfl_string;

/* The string in a field of `room` bytes, with zeros behind it. */
tinyfl_string tinyfl_padded(const uint8_t *field, size_t room);

/* 1 if the bytes are exactly one well-formed map with text keys, or empty; else 0. */
int tinyfl_map_check(const tinyfl_map *map);

/* Each returns 1 if the map has `key` with a value of this type, else 0. */
int tinyfl_get_uint(const tinyfl_map *map, const char *key, uint64_t most, uint64_t *value);
int tinyfl_get_bytes(const tinyfl_map *map, const char *key, tinyfl_string *value);
int tinyfl_get_text(const tinyfl_map *map, const char *key, tinyfl_string *value);

/* Writes into the caller's buffer; an item that does not fit sets `full` and is not written. */
typedef struct {
    uint8_t *bytes;
    size_t room, count;
    uint8_t full;
} tinyfl_writer;

void tinyfl_put_map(tinyfl_writer *writer, size_t pairs);
void tinyfl_put_array(tinyfl_writer *writer, size_t items);
void tinyfl_put_text(tinyfl_writer *writer, const char *text);
void tinyfl_put_string(tinyfl_writer *writer, tinyfl_string text);
void tinyfl_put_uint(tinyfl_writer *writer, uint64_t value);
void tinyfl_put_int(tinyfl_writer *writer, int32_t value);
void tinyfl_put_float(tinyfl_writer *writer, float value);
/* Reserves a byte string for the caller to fill; NULL if it does not fit. */
uint8_t *tinyfl_put_room(tinyfl_writer *writer, size_t count);
void tinyfl_put_bytes(tinyfl_writer *writer, const void *bytes, size_t count);

#ifdef __cplusplus
}
#endif

#endif
