/* A commit is a run of records from the start of a page on, closed by a record without name that holds its sequence number and
 * the hash of all bytes before the hash. */
#include <string.h>

#include "commands.h"
#include "store.h"

enum { HEADER = TINYFL_NAME_BYTES + 4, SEQUENCE = 4, CLOSING = SEQUENCE + TINYFL_SHA256_BYTES };
enum { PIECE = TINYFL_STORE_PAGE > 64 ? TINYFL_STORE_PAGE : 64 }; /* bytes programmed in one call: a page at most once */

static const tinyfl_slot *area_at(const tinyfl_store *store, int area) { return &store->port->slots[TINYFL_STORE_SLOT + area]; }

static uint32_t whole_pages(uint32_t bytes) { return (bytes + TINYFL_STORE_PAGE - 1) / TINYFL_STORE_PAGE * TINYFL_STORE_PAGE; }

static int same_name(const tinyfl_record *a, const tinyfl_record *b) { return memcmp(a->name, b->name, sizeof a->name) == 0; }

/* Reads the record at `at`, and moves on behind it; 0 if there is none. */
static int next_record(const tinyfl_slot *area, uint32_t *at, tinyfl_record *record)
{
    if (*at > area->count || area->count - *at < HEADER)
        return 0;
    memcpy(record->name, area->bytes + *at, sizeof record->name);
    record->count = tinyfl_word_at(area->bytes + *at + TINYFL_NAME_BYTES);
    record->data = area->bytes + *at + HEADER;
    if (record->count % 4 || record->count > area->count - *at - HEADER)
        return 0;
    *at += HEADER + record->count;
    return 1;
}

/* The sequence number of the commit at `at`, and the end of its pages; 0 if there is no complete one. */
static uint32_t commit_at(const tinyfl_port *port, const tinyfl_slot *area, uint32_t at, uint32_t *end)
{
    const uint32_t start = at;
    tinyfl_record record;
    while (next_record(area, &at, &record)) {
        if (record.name[0])
            continue;
        const uint8_t *closing = record.data;
        tinyfl_sha256 sum;
        uint8_t hash[TINYFL_SHA256_BYTES];
        if (record.count != CLOSING)
            return 0;
        tinyfl_sha256_start(&sum);
        tinyfl_hash_add(port, &sum, area->bytes + start, at - start - sizeof hash);
        tinyfl_sha256_end(&sum, hash);
        *end = whole_pages(at);
        return memcmp(hash, closing + SEQUENCE, sizeof hash) == 0 ? tinyfl_word_at(closing) : 0;
    }
    return 0;
}

void tinyfl_store_open(tinyfl_store *store, const tinyfl_port *port)
{
    *store = (tinyfl_store){.port = port, .area = -1};
    for (int area = 0; area < 2; area++) {
        const tinyfl_slot *place = area_at(store, area);
        uint32_t sequence = 0, end = 0, at = 0, found;
        while ((found = commit_at(port, place, at, &at)) > sequence)
            sequence = found, end = at;
        if (sequence > store->sequence)
            *store = (tinyfl_store){port, area, sequence, end};
    }
}

/* Reads the next record of complete commits, and moves on behind it; 0 at their end. */
static int next_committed(const tinyfl_store *store, uint32_t *at, tinyfl_record *record)
{
    while (*at < store->end && next_record(area_at(store, store->area), at, record)) {
        if (record->name[0])
            return 1;
        *at = whole_pages(*at);
    }
    return 0;
}

/* The last committed record of this name; its count is 0 if there is none. */
static tinyfl_record last_of(const tinyfl_store *store, const tinyfl_record *named)
{
    tinyfl_record record, last = {.count = 0};
    for (uint32_t at = 0; next_committed(store, &at, &record);)
        if (same_name(&record, named))
            last = record;
    return last;
}

const void *tinyfl_store_find(const tinyfl_store *store, const char *name, uint32_t *count)
{
    tinyfl_record named = {.count = 0};
    for (size_t i = 0; i < sizeof named.name && name[i]; i++)
        named.name[i] = name[i];
    const tinyfl_record last = last_of(store, &named);
    *count = last.count;
    return last.count > 0 ? last.data : NULL;
}

static int is_new(const tinyfl_store *store, const tinyfl_record *record)
{
    const tinyfl_record last = last_of(store, record);
    return last.count != record->count || (last.count > 0 && memcmp(last.data, record->data, last.count) != 0);
}

/* The changes of a commit. */
typedef struct {
    const tinyfl_record *records;
    size_t count;
} changes;

/* Whether a record of the area stays as it is. */
static int stays(const tinyfl_store *store, const tinyfl_record *record, changes made)
{
    if (record->count == 0 || last_of(store, record).data != record->data)
        return 0;
    for (size_t i = 0; i < made.count; i++)
        if (same_name(record, &made.records[i]) && is_new(store, &made.records[i]))
            return 0;
    return 1;
}

/* A commit on its way into an area: hashed, and programmed in pieces. */
typedef struct {
    const tinyfl_port *port;
    int slot, failed;
    uint32_t at, held;
    tinyfl_sha256 sum;
    uint8_t piece[PIECE];
} draft;

static void flush(draft *to)
{
    if (to->held > 0 && !to->failed)
        to->failed = to->port->program(to->slot, to->at, to->piece, to->held) != 0;
    to->at += to->held;
    to->held = 0;
}

static void put(draft *to, const void *bytes, uint32_t count)
{
    const uint8_t *from = bytes;
    tinyfl_sha256_add(&to->sum, from, count);
    to->port->alive();
    for (uint32_t part; count > 0; from += part, count -= part) {
        part = count < PIECE - to->held ? count : PIECE - to->held;
        memcpy(to->piece + to->held, from, part);
        to->held += part;
        if (to->held == PIECE)
            flush(to);
    }
}

static void put_record(draft *to, const tinyfl_record *record)
{
    uint8_t count[4];
    tinyfl_put_word(count, record->count);
    put(to, record->name, sizeof record->name);
    put(to, count, sizeof count);
    if (record->count > 0)
        put(to, record->data, record->count);
}

static void put_closing(draft *to, uint32_t sequence)
{
    uint8_t head[HEADER + SEQUENCE] = {0}, hash[TINYFL_SHA256_BYTES];
    tinyfl_put_word(head + TINYFL_NAME_BYTES, CLOSING);
    tinyfl_put_word(head + HEADER, sequence);
    put(to, head, sizeof head);
    tinyfl_sha256_end(&to->sum, hash);
    put(to, hash, sizeof hash);
    flush(to);
}

/* Writes a commit to the area: the changes and, if it is the area's first, all that stays. 0 or a refusal. */
static int write_commit(tinyfl_store *store, int area, uint32_t start, changes made)
{
    draft to = {.port = store->port, .slot = TINYFL_STORE_SLOT + area, .at = start};
    tinyfl_record record;
    tinyfl_sha256_start(&to.sum);
    for (uint32_t at = 0; start == 0 && next_committed(store, &at, &record);)
        if (stays(store, &record, made))
            put_record(&to, &record);
    for (size_t i = 0; i < made.count; i++)
        if (is_new(store, &made.records[i]))
            put_record(&to, &made.records[i]);
    put_closing(&to, store->sequence + 1);
    uint32_t end;
    if (to.failed || commit_at(store->port, area_at(store, area), start, &end) != store->sequence + 1)
        return TINYFL_REFUSED_FLASH;
    *store = (tinyfl_store){store->port, area, store->sequence + 1, end};
    return 0;
}

/* Bytes of the changes; with all that stays, if `whole`. */
static uint64_t commit_bytes(const tinyfl_store *store, changes made, int whole)
{
    uint64_t bytes = HEADER + CLOSING;
    tinyfl_record record;
    for (size_t i = 0; i < made.count; i++)
        if (is_new(store, &made.records[i]))
            bytes += HEADER + (uint64_t)made.records[i].count;
    for (uint32_t at = 0; whole && next_committed(store, &at, &record);)
        if (stays(store, &record, made))
            bytes += HEADER + (uint64_t)record.count;
    return bytes;
}

int tinyfl_store_commit(tinyfl_store *store, const tinyfl_record *records, size_t count)
{
    const changes made = {records, count};
    const uint64_t bytes = commit_bytes(store, made, 0);
    if (bytes == HEADER + CLOSING)
        return 0;
    /* What a cut commit has left at the end cannot be written over. */
    if (store->area >= 0 && bytes <= area_at(store, store->area)->count - store->end &&
        write_commit(store, store->area, store->end, made) == 0)
        return 0;
    const int other = store->area == 0; /* the first area, if there is no commit */
    if (commit_bytes(store, made, 1) > area_at(store, other)->count)
        return TINYFL_REFUSED_MEMORY;
    return store->port->erase(TINYFL_STORE_SLOT + other) == 0 ? write_commit(store, other, 0, made) : TINYFL_REFUSED_FLASH;
}
