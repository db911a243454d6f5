#include "cbor.h"

#include <string.h>

enum { UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE }; /* major types */
enum { INDEFINITE = 31, DEPTH = 8 };

typedef struct {
    const uint8_t *at, *end;
} reader;

typedef struct {
    uint8_t major, info;
    uint64_t value; /* the argument: a number, a length, or a float's bits */
} head;

tinyfl_string tinyfl_padded(const uint8_t *field, size_t room)
{
    tinyfl_string text = {field, 0};
    while (text.count < room && field[text.count])
        text.count++;
    return text;
}

/* Reads the next item's head; 0 if it is malformed, or at the end. */
static int take(reader *r, head *h)
{
    if (r->at == r->end)
        return 0;
    h->major = *r->at >> 5;
    h->info = *r->at++ & 31;
    h->value = h->info;
    if (h->info < 24)
        return 1;
    if (h->info == INDEFINITE)
        return h->major >= BYTES && h->major != TAG;
    if (h->info > 27)
        return 0;
    const size_t width = (size_t)1 << (h->info - 24);
    if ((size_t)(r->end - r->at) < width)
        return 0;
    h->value = 0;
    for (size_t i = 0; i < width; i++)
        h->value = h->value << 8 | *r->at++;
    return 1;
}

static int is_break(const head *h) { return h->major == SIMPLE && h->info == INDEFINITE; }

/* Skips the contents of a definite string. */
static int pass(reader *r, uint64_t count)
{
    if (count > (size_t)(r->end - r->at))
        return 0;
    r->at += count;
    return 1;
}

/* Skips one item with its contents. `left` counts the missing items of each open array, map or string; an item of indefinite
 * length needs a break. */
static int skip(reader *r)
{
    const uint64_t open = UINT64_MAX;
    uint64_t left[DEPTH] = {1};
    int depth = 0;
    while (depth >= 0) {
        if (left[depth] == 0) {
            depth--;
            continue;
        }
        head h;
        if (!take(r, &h))
            return 0;
        if (is_break(&h)) {
            if (left[depth] != open)
                return 0;
            depth--;
            continue;
        }
        if (left[depth] != open)
            left[depth]--;
        if ((h.major == BYTES || h.major == TEXT) && h.info != INDEFINITE) {
            if (!pass(r, h.value))
                return 0;
        } else if (h.major >= BYTES && h.major <= TAG) {
            const uint64_t items = h.major == TAG ? 1 : h.value;
            /* An item has at least one byte, so a larger count is false; twice a true one cannot overflow. */
            if (++depth == DEPTH || (h.info != INDEFINITE && items > (size_t)(r->end - r->at)))
                return 0;
            left[depth] = h.info == INDEFINITE ? open : h.major == MAP ? 2 * items : items;
        }
    }
    return 1;
}

/* Opens the map: returns its declared number of pairs, or all ones for INDEFINITE. */
static int enter(reader *r, uint64_t *pairs)
{
    head h;
    if (!take(r, &h) || h.major != MAP)
        return 0;
    *pairs = h.info == INDEFINITE ? UINT64_MAX : h.value;
    return 1;
}

/* Reads the map's next key; 0 at the map's end, -1 if it is malformed. */
static int next_key(reader *r, uint64_t *pairs, tinyfl_string *key)
{
    head h;
    if (*pairs == 0)
        return 0;
    if (!take(r, &h))
        return -1;
    if (*pairs == UINT64_MAX && is_break(&h))
        return 0;
    if (h.major != TEXT || h.info == INDEFINITE)
        return -1;
    *key = (tinyfl_string){r->at, (size_t)h.value};
    if (*pairs != UINT64_MAX)
        (*pairs)--;
    return pass(r, h.value) ? 1 : -1;
}

int tinyfl_map_check(const tinyfl_map *map)
{
    reader r = {map->bytes, map->bytes + map->count};
    uint64_t pairs;
    tinyfl_string key;
    if (map->count == 0)
        return 1;
    if (!enter(&r, &pairs))
        return 0;
    for (;;) {
        const int more = next_key(&r, &pairs, &key);
        if (more <= 0)
            return more == 0 && r.at == r.end;
        if (!skip(&r))
            return 0;
    }
}

/* Finds the value of `key`: its head, with the reader after it. */
static int find(const tinyfl_map *map, const char *key, reader *r, head *h)
{
    *r = (reader){map->bytes, map->bytes + map->count};
    uint64_t pairs;
    tinyfl_string name;
    if (!enter(r, &pairs))
        return 0;
    while (next_key(r, &pairs, &name) > 0) {
        size_t same = 0;
        while (same < name.count && key[same] && (uint8_t)key[same] == name.bytes[same])
            same++;
        if (same == name.count && !key[same])
            return take(r, h);
        if (!skip(r))
            return 0;
    }
    return 0;
}

int tinyfl_get_uint(const tinyfl_map *map, const char *key, uint64_t most, uint64_t *value)
{
    reader r;
    head h;
    if (!find(map, key, &r, &h) || h.major != UNSIGNED || h.value > most)
        return 0;
    *value = h.value;
    return 1;
}

static int get_string(const tinyfl_map *map, const char *key, uint8_t major, tinyfl_string *value)
{
    reader r;
    head h;
    if (!find(map, key, &r, &h) || h.major != major || h.info == INDEFINITE)
        return 0;
    *value = (tinyfl_string){r.at, (size_t)h.value};
    return pass(&r, h.value);
}

int tinyfl_get_bytes(const tinyfl_map *map, const char *key, tinyfl_string *value)
{
    return get_string(map, key, BYTES, value);
}

int tinyfl_get_text(const tinyfl_map *map, const char *key, tinyfl_string *value)
{
    return get_string(map, key, TEXT, value);
}

static uint8_t *room(tinyfl_writer *w, size_t count)
{
    if (w->full || count > w->room - w->count) {
        w->full = 1;
        return NULL;
    }
    w->count += count;
    return w->bytes + w->count - count;
}

static void put_head(tinyfl_writer *w, int major, uint64_t value)
{
    size_t width = value < 24 ? 0 : value <= 0xff ? 1 : value <= 0xffff ? 2 : value <= 0xffffffff ? 4 : 8;
    uint8_t *to = room(w, 1 + width);
    if (!to)
        return;
    const int info = width == 0 ? (int)value : width == 1 ? 24 : width == 2 ? 25 : width == 4 ? 26 : 27;
    *to++ = (uint8_t)(major << 5 | info);
    while (width-- > 0)
        *to++ = (uint8_t)(value >> (8 * width));
}

void tinyfl_put_map(tinyfl_writer *w, size_t pairs) { put_head(w, MAP, pairs); }

void tinyfl_put_array(tinyfl_writer *w, size_t items) { put_head(w, ARRAY, items); }

static void put_string(tinyfl_writer *w, int major, const void *bytes, size_t count)
{
    put_head(w, major, count);
    uint8_t *to = room(w, count);
    if (to && count > 0)
        memcpy(to, bytes, count);
}

void tinyfl_put_text(tinyfl_writer *w, const char *text)
{
    size_t count = 0;
    while (text[count])
        count++;
    put_string(w, TEXT, text, count);
}

void tinyfl_put_string(tinyfl_writer *w, tinyfl_string text) { put_string(w, TEXT, text.bytes, text.count); }

void tinyfl_put_bytes(tinyfl_writer *w, const void *bytes, size_t count) { put_string(w, BYTES, bytes, count); }

uint8_t *tinyfl_put_room(tinyfl_writer *w, size_t count)
{
    put_head(w, BYTES, count);
    return room(w, count);
}

void tinyfl_put_uint(tinyfl_writer *w, uint64_t value) { put_head(w, UNSIGNED, value); }

void tinyfl_put_int(tinyfl_writer *w, int32_t value)
{
    if (value < 0)
        put_head(w, NEGATIVE, (uint32_t)(-1 - value));
    else
        put_head(w, UNSIGNED, (uint32_t)value);
}

void tinyfl_put_float(tinyfl_writer *w, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint8_t *to = room(w, 5);
    if (!to)
        return;
    *to++ = SIMPLE << 5 | 26;
    for (int shift = 24; shift >= 0; shift -= 8)
        *to++ = (uint8_t)(bits >> shift);
}
