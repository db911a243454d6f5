/* The agent's commands: each reads its request's map and writes its reply's. */
#ifndef TINYFL_COMMANDS_H
#define TINYFL_COMMANDS_H

#include "agent.h"
#include "cbor.h"

#define TINYFL_LATER (-1) /* a command's answer beside 0 and a refusal: the reply comes when the round is done */

typedef int tinyfl_command(tinyfl_agent *agent, const tinyfl_map *request, tinyfl_writer *reply);

/* about.c */
tinyfl_command tinyfl_echo, tinyfl_reset, tinyfl_parameters, tinyfl_describe, tinyfl_status;

/* model.c */
tinyfl_command tinyfl_plan_write, tinyfl_weights_write, tinyfl_weights_read;

/* Takes a whole plan of `count` bytes, which lies at the start of the arena. 0 or a refusal. */
int tinyfl_take_plan(tinyfl_agent *agent, size_t count);
/* Readies the learner over the weights as they lie in the arena. 0 or a refusal. */
int tinyfl_take_weights(tinyfl_agent *agent);
/* Back to empty: nothing of a plan or weights is found here again. */
void tinyfl_drop_plan(tinyfl_agent *agent);
size_t tinyfl_weights_bytes(const tinyfl_agent *agent);
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

/* slots.c */
tinyfl_command tinyfl_commit;

void tinyfl_load_newest_slot(tinyfl_agent *agent);
/* The hash of the newest slot's weights. */
void tinyfl_committed(const tinyfl_agent *agent, uint8_t hash[TINYFL_SHA256_BYTES]);

#endif
