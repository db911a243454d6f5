/* The agent's commands: each reads a request's map and writes the reply's. */
#ifndef TINYFL_COMMANDS_H
#define TINYFL_COMMANDS_H

#include "agent.h"
#include "cbor.h"

#define TINYFL_LATER (-1) /* a command's result besides 0 and a refusal: the reply follows at the end of the round */

typedef int tinyfl_command(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply);

/* about.c */
tinyfl_command tinyfl_echo, tinyfl_reset, tinyfl_parameters, tinyfl_describe, tinyfl_status;

/* rate.c */
tinyfl_command tinyfl_rates_read, tinyfl_rate_write;

/* Returns to the rate at boot if the link's frames are lost at another. */
void tinyfl_rate_check(tinyfl_agent *agent);

/* upload.c */

/* A block of an upload in a request. */
typedef struct {
    uint64_t off, count; /* count and sha only if off is 0 */
    tinyfl_string data, sha;
} tinyfl_block;

/* Reads a block of an upload of at most `most` bytes; 0 if a field is missing or out of range. */
int tinyfl_block_read(const tinyfl_map *request, uint64_t most, tinyfl_block *block);
/* Whether the block continues this upload, rather than announcing another. */
int tinyfl_block_continues(const tinyfl_block *block, const tinyfl_upload *upload);
void tinyfl_upload_start(tinyfl_upload *upload, const tinyfl_block *block);
/* 1 if the block is the next one, 0 if not, or minus a refusal. */
int tinyfl_upload_next(const tinyfl_upload *upload, const tinyfl_block *block);
/* Whether the complete upload in `bytes` has the announced hash. */
int tinyfl_upload_whole(const tinyfl_port *port, const tinyfl_upload *upload, const uint8_t *bytes);
/* tinyfl_sha256_add for a whole slot: feeds the watchdog, since a slow chip needs seconds. */
void tinyfl_hash_add(const tinyfl_port *port, tinyfl_sha256 *hash, const void *bytes, size_t count);
/* The hash of these bytes, in the same way. */
void tinyfl_hash_of(const tinyfl_port *port, const void *bytes, size_t count, uint8_t *hash);

/* Copies the block if it is the next one. 1 if it was the last, and the whole has its hash; 0, or minus a refusal. */
int tinyfl_take_block(const tinyfl_port *port, tinyfl_upload *upload, const tinyfl_block *block, uint8_t *into);

/* Replies with `off`. Returns 0, as a command does. */
int tinyfl_put_offset(tinyfl_writer *reply, uint64_t off);
/* Replies with the number of the store's last commit. Returns 0, as a command does. */
int tinyfl_put_commits(const tinyfl_agent *agent, tinyfl_writer *reply);
/* Replies with `off`, `len`, and as many of the `count` bytes from `from` on as fit. Returns 0, as a command does. */
int tinyfl_put_part(tinyfl_writer *reply, uint64_t off, const uint8_t *bytes, size_t count, uint64_t from);

/* arena.c */

/* Arena parts at the upper end begin, and end, at a multiple of 8 bytes from its start. */
static inline size_t tinyfl_rounded(size_t bytes) { return (bytes + 7) / 8 * 8; }
static inline size_t tinyfl_top_end(const tinyfl_agent *agent) { return agent->arena_bytes / 8 * 8; }
/* Where the uppermost `bytes` begin: those of a set's record. */
static inline uint8_t *tinyfl_top(const tinyfl_agent *agent, size_t bytes)
{
    return agent->arena + tinyfl_top_end(agent) - tinyfl_rounded(bytes);
}
/* Bytes of the arena that are no set's. */
static inline size_t tinyfl_arena_end(const tinyfl_agent *agent)
{
    return agent->arena_bytes - agent->classes.claimed - agent->online.claimed;
}
/* Bytes of the arena, from its start, currently used by the plan and the learner. */
size_t tinyfl_learner_end(const tinyfl_agent *agent);
size_t tinyfl_weights_bytes(const tinyfl_agent *agent);

/* Whether all weights are here: a round's update may be a part of them, or a gradient, which has taken their place. */
int tinyfl_has_weights(const tinyfl_agent *agent);
int tinyfl_has_program(const tinyfl_agent *agent);
static inline int tinyfl_has_classes(const tinyfl_agent *agent) { return agent->classes.means.places > 0; }
static inline int tinyfl_has_online(const tinyfl_agent *agent) { return agent->online.core.state != NULL; }

/* Claim the upper `bytes` of the arena for one set, which drops the other; NULL if the learner has them. */
uint8_t *tinyfl_claim_classes(tinyfl_agent *agent, size_t bytes);
uint8_t *tinyfl_claim_online(tinyfl_agent *agent, size_t bytes);

/* Returns to the empty state, without plan and weights. */
void tinyfl_drop_plan(tinyfl_agent *agent);
/* To be called before the learner extends its part of the arena. */
void tinyfl_drop_prediction(tinyfl_agent *agent);
void tinyfl_drop_classes(tinyfl_agent *agent);
void tinyfl_drop_online(tinyfl_agent *agent);
/* Drops the sets of this stage: when what gives their embedding goes. */
void tinyfl_drop_sets_of(tinyfl_agent *agent, tinyfl_stage stage);

/* model.c */
tinyfl_command tinyfl_plan_write, tinyfl_weights_write, tinyfl_weights_read;

/* Reads a complete plan of `count` bytes at the start of the arena. 0 or a refusal. */
int tinyfl_take_plan(tinyfl_agent *agent, size_t count);
/* Initialises the learner over the weights in the arena. 0 or a refusal. */
int tinyfl_take_weights(tinyfl_agent *agent);
/* Whether there is something for weights read, and its bytes: all weights, or a round's update. */
int tinyfl_has_update(const tinyfl_agent *agent);
size_t tinyfl_update_bytes(const tinyfl_agent *agent);

/* round.c */
tinyfl_command tinyfl_train, tinyfl_samples, tinyfl_abort;

/* Learns from one sample of the board's own source. */
void tinyfl_round_step(tinyfl_agent *agent);

/* measure.c */
tinyfl_command tinyfl_evaluation, tinyfl_inference;

/* Copies bytes of `data` to the current sample, of `whole` bytes, until it is complete; returns their number. y follows x
 * in memory. */
size_t tinyfl_fill(tinyfl_agent *agent, tinyfl_string data, size_t whole);
size_t tinyfl_sample_bytes(const tinyfl_agent *agent);

/* Adds a request's block to the stream `feed` of one x; once that is complete, `outputs` are the network's. 1 then, 0 before, or
 * minus a refusal. `off` gets the expected offset. */
int tinyfl_take_x(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_feed feed, float *outputs, uint64_t *off);

/* The place of the largest value, the first on a tie. */
uint32_t tinyfl_largest(const float *values, uint32_t count);

/* sense.c */
tinyfl_command tinyfl_sense_write, tinyfl_sense_read;

/* The source of this name, or NULL. */
const tinyfl_source *tinyfl_source_called(tinyfl_string name);

/* inference.c */
tinyfl_command tinyfl_program_write, tinyfl_predict, tinyfl_prediction;

void tinyfl_load_program(tinyfl_agent *agent);
/* The same as tinyfl_take_x, of the program's input and its output, dequantised. */
int tinyfl_take_input(tinyfl_agent *agent, const tinyfl_map *request, float *outputs, uint64_t *off);

/* classes.c */
tinyfl_command tinyfl_classes_write, tinyfl_classes_read, tinyfl_enrol, tinyfl_classify, tinyfl_forget, tinyfl_classes_commit;

/* Opens the store, and loads its set if it is of the embedding that is here. */
void tinyfl_load_classes(tinyfl_agent *agent);

/* online_set.c */
tinyfl_command tinyfl_online_write;

/* Where the set's record is, of TINYFL_ONLINE_RECORD bytes. */
uint8_t *tinyfl_online_record(const tinyfl_agent *agent);
/* Bytes of the names of the set's outputs. */
uint32_t tinyfl_online_names(const tinyfl_agent *agent);
/* Lays out a set that has learnt nothing, below its complete record. 0 or a refusal. */
int tinyfl_online_lay_out(tinyfl_agent *agent, size_t count);
/* 0 if the network is still that of the set, or a refusal. */
int tinyfl_online_ready(const tinyfl_agent *agent);
/* Names an output. */
void tinyfl_online_name(tinyfl_agent *agent, uint32_t number, tinyfl_string name);
/* The refusal for a code of core/online.h; 0 for TINYFL_OK. */
int tinyfl_online_refusal(int code);

/* tinyol.c */
tinyfl_command tinyfl_online_read, tinyfl_online_take, tinyfl_online_answer, tinyfl_online_forget;

/* The sample in x, through its stage and the head: TINYFL_OK or a code. */
int tinyfl_online_go(tinyfl_agent *agent);
/* Commits if it is time to. */
void tinyfl_online_mark(tinyfl_agent *agent);
/* The sample whose label the set asks for; 0: none. */
uint32_t tinyfl_online_wants(const tinyfl_agent *agent);

/* learnt.c */
tinyfl_command tinyfl_learnt_read, tinyfl_learnt_write, tinyfl_online_keep, tinyfl_online_back;

/* Keeps the set in the store. 0 or a refusal. */
int tinyfl_online_commit(tinyfl_agent *agent);
/* Loads the store's set, once the classes are loaded. */
void tinyfl_load_online(tinyfl_agent *agent);

/* head.c */
tinyfl_command tinyfl_head_read, tinyfl_head_write;

/* What the one place for transfers of what is learnt holds: bytes that come, or a copy that is read while the board learns. */
enum { TINYFL_TAKES_ANSWER = 1, TINYFL_TAKES_LEARNT, TINYFL_SHOWS_LEARNT, TINYFL_TAKES_HEAD, TINYFL_SHOWS_HEAD };
/* Gives the place to another of these; what was in it is then incomplete. */
void tinyfl_online_stage(tinyfl_online_board *online, uint32_t what);
/* To be called when the set has learnt: the same bytes, sent again, are then no repeat. */
void tinyfl_online_moved(tinyfl_online_board *online);

/* own.c */
tinyfl_command tinyfl_online_listen;

/* Learns from the source of this name, none: from no source, and from its labels too; `samples` of them, 0: without an end. 0 or
 * a refusal. */
int tinyfl_online_use(tinyfl_agent *agent, tinyfl_string name, int labels, uint32_t samples);
/* Goes on with the source that the store names for the set loaded from there. */
void tinyfl_online_resume(tinyfl_agent *agent);
/* Takes a sample of that source, if there is one. Whether the next turn must follow without sleep. */
int tinyfl_online_step(tinyfl_agent *agent);

/* slots.c */
tinyfl_command tinyfl_commit;

/* Numbers in flash, little-endian. */
static inline uint32_t tinyfl_word_at(const uint8_t *b)
{
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static inline void tinyfl_put_word(uint8_t *b, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        b[i] = (uint8_t)(value >> (8 * i));
}

void tinyfl_load_newest_slot(tinyfl_agent *agent);
/* The hash of the newest slot's weights. */
void tinyfl_committed(const tinyfl_agent *agent, uint8_t hash[TINYFL_SHA256_BYTES]);

#endif
