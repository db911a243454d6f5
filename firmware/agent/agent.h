/* The agent: an SMP server that lets a coordinator put a plan and weights on a board, have it learn, and take the weights
 * back. SPEC.md has every byte. No malloc: the caller gives an arena, which holds the plan, the weights and the learner.
 *
 *     tinyfl_agent_init(&agent, tinyfl_port_start(), arena, bytes);
 *     for (;;)
 *         tinyfl_agent_turn(&agent);
 */
#ifndef TINYFL_AGENT_H
#define TINYFL_AGENT_H

#include "frame.h"
#include "port.h"
#include "program.h"
#include "sha256.h"
#include "source.h"
#include "tinyfl.h"

#ifndef TINYFL_BUFFER
#define TINYFL_BUFFER 1024 /* the longest message either way, header included; at least 512 */
#endif
#define TINYFL_WINDOW 1   /* requests a host may have under way */
#define TINYFL_PROTOCOL 2 /* of SPEC.md's messages */
#define TINYFL_GROUP 65
#define TINYFL_EABORTED (-6) /* status' code after abort, beside the core's own */

/* What went wrong: `rc` of an error reply in our group. */
enum {
    TINYFL_REFUSED_INVALID = 2, /* a field is missing, of the wrong type, or out of its range */
    TINYFL_REFUSED_PLAN = 3,    /* the core refuses the plan or the program */
    TINYFL_REFUSED_MEMORY = 4,  /* the arena, or a slot, is too small */
    TINYFL_REFUSED_STATE = 5,   /* not now: no plan, no weights, no program, or busy */
    TINYFL_REFUSED_BASE = 6,    /* stale: the weights here are not those that the request names */
    TINYFL_REFUSED_HASH = 7,    /* what arrived does not have the SHA-256 that was announced */
    TINYFL_REFUSED_NUMERIC = 8, /* the core's guard: a value is not finite or too large */
    TINYFL_REFUSED_SIZE = 9,    /* the reply would not fit TINYFL_BUFFER */
    TINYFL_REFUSED_FLASH = 10,  /* the slot could not be written */
    TINYFL_REFUSED_SOURCE = 11, /* no source here has this name, or it failed */
};

typedef enum {
    TINYFL_EMPTY,    /* no plan */
    TINYFL_PLANNED,  /* a plan, no weights */
    TINYFL_READY,    /* weights whose hash is `weights` */
    TINYFL_LEARNING, /* a round is under way */
    TINYFL_LEARNT,   /* a round is done; `weights` is the hash of what it learnt */
    TINYFL_FAILED,   /* a round ended early, as `code` says; the weights are of no use: put them again */
} tinyfl_state;

/* A round as the host asked for it. */
typedef struct {
    tinyfl_stream stream;
    uint32_t samples, batch, passes;
    float rate, clip;
    uint8_t base[TINYFL_SHA256_BYTES];
    const tinyfl_source *source; /* NULL: samples are fed */
} tinyfl_round;

/* An upload in blocks: what was announced, and how much of it is in. */
typedef struct {
    uint32_t count, done;
    uint8_t sha[TINYFL_SHA256_BYTES];
} tinyfl_upload;

/* Which request the stream of floats belongs to that is being taken in. */
typedef enum { TINYFL_NO_STREAM, TINYFL_SAMPLES, TINYFL_EVALUATE, TINYFL_INFER } tinyfl_feed;

/* Fields are the agent's own; the caller only provides the room. */
typedef struct {
    const tinyfl_port *port;
    tinyfl_state state;

    uint8_t *arena;
    size_t arena_bytes;
    tinyfl_upload plan_upload, weights_upload;
    tinyfl_plan plan; /* its layers, and all pointers below, lie in the arena */
    uint32_t inputs, outputs;
    float *weights, *x, *y, *gradient;
    void *memory;
    tinyfl_learner learner;
    uint8_t hash[TINYFL_SHA256_BYTES]; /* of the weights, in states ready and learnt */

    tinyfl_round round;
    uint64_t done; /* samples learnt from */
    float loss;    /* their sum */
    int code;

    tinyfl_feed feed;
    uint64_t fed; /* bytes */
    uint32_t measured, right;
    float measured_loss;

    int newest; /* slot, or -1 */
    uint32_t sequence;

    tinyfl_upload program_upload;
    tinyfl_program program; /* in its slot; open once all of the upload is in */
    uint32_t predicted;     /* bytes of its input that are in; all of them: the output is there */

    tinyfl_frame frame;
    uint8_t waiting[8]; /* header of a train request that is answered when the round is done */
    uint8_t is_waiting;
    uint8_t request[TINYFL_BUFFER + TINYFL_CRC_BYTES], reply[TINYFL_BUFFER + TINYFL_CRC_BYTES];
} tinyfl_agent;

/* Loads the newest whole model slot and opens the program, if they are there. The arena must be aligned as a pointer
 * and outlive the agent. */
void tinyfl_agent_init(tinyfl_agent *agent, const tinyfl_port *port, void *arena, size_t bytes);

/* Takes in the bytes that have arrived, answers a request, learns from one sample, or sleeps. */
void tinyfl_agent_turn(tinyfl_agent *agent);

#endif
