/* The store: named blocks of words in flash, such as class means and other state that outlives the power. An append-only log in
 * two areas that take turns (SPEC.md, store). A cut of power at any moment leaves the blocks of the last complete commit. */
#ifndef TINYFL_STORE_H
#define TINYFL_STORE_H

#include "port.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef TINYFL_STORE_PAGE
#define TINYFL_STORE_PAGE 4 /* a power of two, from 4 on: a write that power cuts leaves all other pages of an area as they were */
#endif
#define TINYFL_NAME_BYTES 16

typedef struct {
    char name[TINYFL_NAME_BYTES]; /* padded with 0, which it need not end with; not empty */
    const void *data;
    uint32_t count; /* bytes, a multiple of 4; 0: the name has no block */
} tinyfl_record;

/* Fields are private to the store. */
typedef struct {
    const tinyfl_port *port;
    int area;          /* with the last commit, 0 or 1; -1: there is none */
    uint32_t sequence; /* of the last commit, from 1 */
    uint32_t end;      /* of its pages */
} tinyfl_store;

/* Finds the last complete commit. */
void tinyfl_store_open(tinyfl_store *store, const tinyfl_port *port);

/* The block of this name in the last commit, of `count` bytes at a multiple of 4, valid until the next commit; NULL if there is
 * none. */
const void *tinyfl_store_find(const tinyfl_store *store, const char *name, uint32_t *count);

/* Makes these the blocks of their names, all or none; other names keep theirs. Writes nothing if they are already there. `data`
 * must be aligned to 4 and names must differ. 0, or TINYFL_REFUSED_MEMORY if all blocks together are too many for an area, or
 * there is none; TINYFL_REFUSED_FLASH if it could not be erased or written: the last commit is still there. */
int tinyfl_store_commit(tinyfl_store *store, const tinyfl_record *records, size_t count);

#ifdef __cplusplus
}
#endif

#endif
