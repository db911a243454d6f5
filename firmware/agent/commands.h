/* The agent's commands: each reads its request's map and writes its reply's. */
#ifndef TINYFL_COMMANDS_H
#define TINYFL_COMMANDS_H

#include "agent.h"
#include "cbor.h"

#define TINYFL_LATER (-1) /* a command's answer beside 0 and a refusal: the reply comes when the round is done */

typedef int tinyfl_command(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply);

/* about.c */
tinyfl_command tinyfl_echo, tinyfl_reset, tinyfl_parameters, tinyfl_describe, tinyfl_status;

/* upload.c */

/* A block of an upload, as a request has it. */
typedef struct {
    uint64_t off, count; /* count and sha only where off is 0 */
    tinyfl_string data, sha;
} tinyfl_block;

/* Reads a block of an upload of at most `most` bytes; 0 where a field is missing or out of its range. */
int tinyfl_block_read(const tinyfl_map *request, uint64_t most, tinyfl_block *block);
/* Whether the block belongs to this upload, rather than to announce another. */
int tinyfl_block_continues(const tinyfl_block *block, const tinyfl_upload *upload);
void tinyfl_upload_start(tinyfl_upload *upload, const tinyfl_block *block);
/* 1 where the block is the next one, 0 where it is not, or minus a refusal. */
int tinyfl_upload_next(const tinyfl_upload *upload, const tinyfl_block *block);
/* Whether `bytes`, all of them, have the hash that was announced. */
int tinyfl_upload_whole(const tinyfl_port *port, const tinyfl_upload *upload, const uint8_t *bytes);
/* tinyfl_sha256_add for what fills a slot: a slow chip takes seconds over it, in which its watchdog must be fed. */
void tinyfl_hash_add(const tinyfl_port *port, tinyfl_sha256 *hash, const void *bytes, size_t count);

/* Replies with `off`. 0, as a command. */
int tinyfl_put_offset(tinyfl_writer *reply, uint64_t off);
/* Replies with `off`, `len`, and of these `count` bytes those that fit, beginning with `from`. 0, as a command. */
int tinyfl_put_part(tinyfl_writer *reply, uint64_t off, const uint8_t *bytes, size_t count, uint64_t from);

/* model.c */
tinyfl_command tinyfl_plan_write, tinyfl_weights_write, tinyfl_weights_read;

/* Takes a whole plan of `count` bytes, which lies at the start of the arena. 0 or a refusal. */
int tinyfl_take_plan(tinyfl_agent *agent, size_t count);
/* Readies the learner over the weights as they lie in the arena. 0 or a refusal. */
int tinyfl_take_weights(tinyfl_agent *agent);
/* Back to empty: nothing of a plan or weights is found here again. */
void tinyfl_drop_plan(tinyfl_agent *agent);
size_t tinyfl_weights_bytes(const tinyfl_agent *agent);
/* Bytes from the start of the arena that the plan and the learner take now. */
size_t tinyfl_learner_end(const tinyfl_agent *agent);
int tinyfl_has_weights(const tinyfl_agent *agent);

/* round.c */
tinyfl_command tinyfl_train, tinyfl_samples, tinyfl_abort;

/* Learns from one sample of the board's own source. */
void tinyfl_round_step(tinyfl_agent *agent);

/* measure.c */
tinyfl_command tinyfl_evaluation, tinyfl_inference;

/* Takes the part of `data` that completes the sample at hand, of `whole` bytes; how many bytes that were. x and y lie
 * one after the other. */
size_t tinyfl_fill(tinyfl_agent *agent, tinyfl_string data, size_t whole);
size_t tinyfl_sample_bytes(const tinyfl_agent *agent);

/* inference.c */
tinyfl_command tinyfl_program_write, tinyfl_predict, tinyfl_prediction;

void tinyfl_load_program(tinyfl_agent *agent);
int tinyfl_has_program(const tinyfl_agent *agent);
/* To be called before the learner takes more of the arena. */
void tinyfl_drop_prediction(tinyfl_agent *agent);

/* slots.c */
tinyfl_command tinyfl_commit;

/* Numbers as slots have them, little-endian. */
uint32_t tinyfl_word_at(const uint8_t *bytes);
void tinyfl_put_word(uint8_t *bytes, uint32_t value);

void tinyfl_load_newest_slot(tinyfl_agent *agent);
/* The hash of the newest slot's weights. */
void tinyfl_committed(const tinyfl_agent *agent, uint8_t hash[TINYFL_SHA256_BYTES]);

#endif
