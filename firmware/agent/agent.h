/* The agent: an SMP server through which a coordinator sends a plan and weights to a board, starts learning, and reads the
 * weights back. SPEC.md has every byte. No malloc: the plan, the weights and the learner are in the caller's arena.
 *
 *     tinyfl_agent_init(&agent, tinyfl_port_start(), arena, bytes);
 *     for (;;)
 *         tinyfl_agent_turn(&agent);
 */
#ifndef TINYFL_AGENT_H
#define TINYFL_AGENT_H

#include "codec.h"
#include "frame.h"
#include "means.h"
#include "online.h"
#include "port.h"
#include "program.h"
#include "sensing.h"
#include "sha256.h"
#include "store.h"
#include "tinyfl.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef TINYFL_BUFFER
#define TINYFL_BUFFER 1024 /* maximum length of a message, header included; at least 512 */
#endif
#define TINYFL_WINDOW 4   /* maximum number of pending requests of a host that transfers weights */
#define TINYFL_BAD_FRAMES 3 /* in a row, after which a board returns to its link's first rate */
#define TINYFL_PROTOCOL 4 /* of SPEC.md's messages */
#define TINYFL_GROUP 65
#define TINYFL_MAX_CLASSES 64 /* of a set of class means, and of one that learns online */
#define TINYFL_EABORTED (-6) /* the code in a status after abort, in addition to those of core and source */

/* `rc` of an error reply in our group. */
enum {
    TINYFL_REFUSED_INVALID = 2, /* a field is missing, of the wrong type, or out of its range */
    TINYFL_REFUSED_PLAN = 3,    /* the core refuses the plan or the program */
    TINYFL_REFUSED_MEMORY = 4,  /* the arena, or a slot, is too small */
    TINYFL_REFUSED_STATE = 5,   /* wrong state: no plan, no weights, no program, or busy */
    TINYFL_REFUSED_BASE = 6,    /* stale: the board's weights are not the request's base */
    TINYFL_REFUSED_HASH = 7,    /* the received data do not have the announced SHA-256 */
    TINYFL_REFUSED_NUMERIC = 8, /* the core's guard: a value is not finite or too large */
    TINYFL_REFUSED_SIZE = 9,    /* the reply does not fit into TINYFL_BUFFER */
    TINYFL_REFUSED_FLASH = 10,  /* the slot could not be written */
    TINYFL_REFUSED_SOURCE = 11, /* no source has this name, or it failed */
};

typedef enum {
    TINYFL_EMPTY,    /* no plan */
    TINYFL_PLANNED,  /* a plan, no weights */
    TINYFL_READY,    /* weights whose hash is `weights` */
    TINYFL_LEARNING, /* a round is in progress */
    TINYFL_LEARNT,   /* a round is done; `weights` is the hash of its result */
    TINYFL_FAILED,   /* a round ended early, with `code`; the weights are invalid: send them again */
} tinyfl_state;

/* A host's request for a round. */
typedef struct {
    tinyfl_stream stream;
    tinyfl_inner inner;
    uint64_t run;   /* whose state this is */
    uint32_t saved; /* rounds of the run's last checkpoint */
    uint8_t base[TINYFL_SHA256_BYTES];
    const tinyfl_source *source; /* NULL: samples are fed */
} tinyfl_round;

/* What the device keeps from round to round of a run: a block of floats in the arena, and its copy as of the run's last
 * checkpoint. Each carries its round, counted from 1; 0: none. */
typedef struct {
    uint64_t run, layers;
    float *blocks; /* the block, then the copy */
    size_t count;  /* floats of each */
    uint32_t round, copied;
} tinyfl_kept;

/* Weights that the device holds while it learns: what its next ones may be a change of. */
typedef struct {
    float *weights; /* in the arena, as many as the plan has; NULL: no place for them */
    int valid;
    uint8_t sha[TINYFL_SHA256_BYTES];
} tinyfl_held;

/* What the bytes of an upload of weights are. */
typedef struct {
    tinyfl_codec codec;
    int held; /* stay while the device learns */
    int adds; /* a change of those held so far */
} tinyfl_form;

/* An upload in blocks: announced size and hash, and bytes received. */
typedef struct {
    uint32_t count, done;
    uint8_t sha[TINYFL_SHA256_BYTES];
} tinyfl_upload;

/* The request to which the current stream of floats belongs. */
typedef enum {
    TINYFL_NO_STREAM,
    TINYFL_SAMPLES,
    TINYFL_EVALUATE,
    TINYFL_INFER,
    TINYFL_ENROL,
    TINYFL_CLASSIFY,
    TINYFL_SENSED
} tinyfl_feed;

/* What gives the embedding of a set; only one that learns online can be of the inputs themselves. */
typedef enum { TINYFL_OF_LEARNER = 0, TINYFL_OF_PROGRAM = 1, TINYFL_OF_INPUTS = 2 } tinyfl_stage;

/* A set of class means, in the upper `claimed` bytes of the arena. */
typedef struct {
    tinyfl_upload upload; /* of the set's record */
    size_t claimed;
    tinyfl_means means; /* no places: there is no set */
    uint32_t stage;
    uint8_t sha[TINYFL_SHA256_BYTES]; /* of its weights or program */
    float threshold;                  /* squared distance beyond which a class is unknown */
    float *embedding;
    uint8_t *labels; /* the counts as of the last commit, then the names */
    tinyfl_record *records;
    uint32_t last; /* 1 more than the class of the sample added last; 0: none */
} tinyfl_classes;

#define TINYFL_ONLINE_RECORD 92 /* bytes of its set's record */
#define TINYFL_SOURCE_NAME 28   /* the most bytes of the name of a source that it learns from by itself */

/* What learns online, in the upper `claimed` bytes of the arena, in the place of class means. */
typedef struct {
    tinyfl_upload upload, learnt; /* of the set's record; of what is put back */
    size_t claimed;
    tinyfl_online core;               /* no state: there is no set */
    uint32_t stage, every;            /* tinyfl_stage; samples from commit to commit, 0: on request */
    uint8_t sha[TINYFL_SHA256_BYTES]; /* of the weights or the program */
    float *x, *embedding, *y;
    uint8_t *names, *staged;
    uint32_t staging, shown; /* what is at `staged`, TINYFL_TAKES_ANSWER and so on; its bytes, where it is read */
    uint32_t fed;                /* bytes of x */
    tinyfl_online_result result; /* of the last sample */
    uint32_t labelled, removed;  /* the sample labelled last, and 1 more than the output removed last; 0: none */
    const tinyfl_source *source; /* from which it learns by itself; NULL: none */
    uint32_t left, bounded;      /* samples still to come from there, if there is an end */
    int sensed;                  /* what became of the last one */
    uint32_t sensor[1 + TINYFL_SOURCE_NAME / 4]; /* whether the source's labels are learnt, and its name: a record of the store */
    uint32_t answer;             /* its class; TINYFL_NO_CLASS: the numbers at `staged` */
    float loss;
} tinyfl_online_board;

/* Fields are private to the agent; the caller only provides the memory. */
typedef struct {
    const tinyfl_port *port;
    tinyfl_state state;

    uint8_t *arena;
    size_t arena_bytes;
    tinyfl_upload plan_upload, weights_upload;
    tinyfl_form form; /* of the weights that are uploaded */
    tinyfl_plan plan; /* its layers, and all pointers below, are in the arena */
    uint32_t inputs, outputs;
    float *weights, *x, *y;
    void *memory;
    tinyfl_learner learner;
    uint8_t hash[TINYFL_SHA256_BYTES]; /* of the weights, in state ready, or of the update, in state learnt */

    tinyfl_round round;
    tinyfl_loop loop;
    tinyfl_sensing sensing;
    int sensed;            /* the result of the last sample outside a round */
    tinyfl_held held;
    tinyfl_kept kept;
    uint32_t kept_from; /* the round of the block that the round started from; 0: reset */
    uint64_t done;      /* samples learnt from */
    size_t sent;        /* bytes of the update */
    int code;

    tinyfl_feed feed;
    uint64_t fed; /* bytes */
    uint32_t measured, right;
    float measured_loss;

    int newest; /* slot, or -1 */
    uint32_t sequence;

    tinyfl_upload program_upload;
    tinyfl_program program; /* in its slot; open once the upload is complete */
    uint32_t predicted;     /* bytes of input received; once complete, the output is ready */

    tinyfl_store store;
    tinyfl_classes classes;
    tinyfl_online_board online;

    tinyfl_frame frame;
    uint32_t baud; /* of the link now, or once the reply is sent; 0: as at boot */
    uint8_t waiting[8]; /* header of a train request, answered at the end of the round */
    uint8_t is_waiting;
    uint8_t request[TINYFL_BUFFER + TINYFL_CRC_BYTES], reply[TINYFL_BUFFER + TINYFL_CRC_BYTES];
} tinyfl_agent;

/* Loads the newest valid model slot, opens the program, and loads the committed classes, if there are any. The arena must be
 * aligned like a pointer and outlive the agent. */
void tinyfl_agent_init(tinyfl_agent *agent, const tinyfl_port *port, void *arena, size_t bytes);

/* Reads received bytes, answers a request, learns from one sample, or sleeps. */
void tinyfl_agent_turn(tinyfl_agent *agent);

#ifdef __cplusplus
}
#endif

#endif
