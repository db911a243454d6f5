/* Transfers in blocks (SPEC.md, wire). */
#include <string.h>

#include "commands.h"

int tinyfl_block_read(const tinyfl_map *request, uint64_t most, tinyfl_block *block)
{
    return tinyfl_get_uint(request, "off", UINT32_MAX, &block->off) && tinyfl_get_bytes(request, "data", &block->data) &&
           (block->off > 0 ||
            (tinyfl_get_uint(request, "len", UINT32_MAX, &block->count) && block->count > 0 && block->count <= most &&
             tinyfl_get_bytes(request, "sha", &block->sha) && block->sha.count == TINYFL_SHA256_BYTES));
}

int tinyfl_block_continues(const tinyfl_block *block, const tinyfl_upload *upload)
{
    return block->off > 0 ||
           (upload->count == block->count && memcmp(upload->sha, block->sha.bytes, TINYFL_SHA256_BYTES) == 0);
}

void tinyfl_upload_start(tinyfl_upload *upload, const tinyfl_block *block)
{
    *upload = (tinyfl_upload){.count = (uint32_t)block->count};
    memcpy(upload->sha, block->sha.bytes, TINYFL_SHA256_BYTES);
}

int tinyfl_upload_next(const tinyfl_upload *upload, const tinyfl_block *block)
{
    if (block->off != upload->done || upload->done == upload->count)
        return 0;
    return block->data.count <= upload->count - upload->done ? 1 : -TINYFL_REFUSED_INVALID;
}

void tinyfl_hash_add(const tinyfl_port *port, tinyfl_sha256 *hash, const void *bytes, size_t count)
{
    enum { CHUNK = 1 << 14 };
    const uint8_t *from = bytes;
    for (size_t part; count > 0; from += part, count -= part) {
        part = count < CHUNK ? count : CHUNK;
        port->alive();
        tinyfl_sha256_add(hash, from, part);
    }
}

void tinyfl_hash_of(const tinyfl_port *port, const void *bytes, size_t count, uint8_t *hash)
{
    tinyfl_sha256 sum;
    tinyfl_sha256_start(&sum);
    tinyfl_hash_add(port, &sum, bytes, count);
    tinyfl_sha256_end(&sum, hash);
}

int tinyfl_upload_whole(const tinyfl_port *port, const tinyfl_upload *upload, const uint8_t *bytes)
{
    uint8_t hash[TINYFL_SHA256_BYTES];
    tinyfl_hash_of(port, bytes, upload->count, hash);
    return memcmp(hash, upload->sha, sizeof hash) == 0;
}

int tinyfl_take_block(const tinyfl_port *port, tinyfl_upload *upload, const tinyfl_block *block, uint8_t *into)
{
    const int next = tinyfl_upload_next(upload, block);
    if (next <= 0)
        return next;
    if (block->data.count > 0)
        memcpy(into + upload->done, block->data.bytes, block->data.count);
    upload->done += (uint32_t)block->data.count;
    if (upload->done < upload->count)
        return 0;
    if (tinyfl_upload_whole(port, upload, into))
        return 1;
    *upload = (tinyfl_upload){0};
    return -TINYFL_REFUSED_HASH;
}

int tinyfl_put_offset(tinyfl_writer *reply, uint64_t off)
{
    tinyfl_put_map(reply, 1);
    tinyfl_put_text(reply, "off");
    tinyfl_put_uint(reply, off);
    return 0;
}

int tinyfl_put_commits(const tinyfl_agent *agent, tinyfl_writer *reply)
{
    tinyfl_put_map(reply, 1);
    tinyfl_put_text(reply, "commits");
    tinyfl_put_uint(reply, agent->store.sequence);
    return 0;
}

int tinyfl_put_part(tinyfl_writer *reply, uint64_t off, const uint8_t *bytes, size_t count, uint64_t from)
{
    enum { OVERHEAD = 32 }; /* maximum bytes of the map around the data */
    const size_t left = count - (size_t)from, room = reply->room - OVERHEAD;
    tinyfl_put_map(reply, 3);
    tinyfl_put_text(reply, "off");
    tinyfl_put_uint(reply, off);
    tinyfl_put_text(reply, "len");
    tinyfl_put_uint(reply, count);
    tinyfl_put_text(reply, "data");
    tinyfl_put_bytes(reply, bytes + from, left < room ? left : room);
    return 0;
}
