/* A stretch of a device's stream through its online learning, with the same source as on a board. */
#include <stdlib.h>
#include <string.h>

#include "native.h"
#include "online.h"

/* Sample i is first a test, and then the label in row i comes, which may be of an earlier sample. */
typedef struct {
    const tinyfl_plan *plan; /* of the frozen network, with theta; NULL: none */
    const float *theta;
    tinyfl_online *online;
    uint32_t count;
    const float *x;           /* (count, inputs) */
    const uint32_t *labelled; /* (count): the number of the sample whose label comes; 0: none */
    const uint32_t *labels;   /* (count): CLASSES */
    const float *targets;     /* (count, places): VALUES and LABELS */
    int32_t *codes, *answers; /* (count): of the sample; of its label, TINYFL_OK without one */
    uint32_t *classes;        /* (count): and so on, as in tinyfl_online_result */
    float *confidence, *scores;
    int32_t *learnt;
    float *outputs; /* (count, places): NaN beyond those there were */
    float *losses;  /* (count): of the label that came; NaN without */
} tinyfl_stretch;

TINYFL_EXPORT size_t tinyfl_native_online_size(void) { return sizeof(tinyfl_online); }

TINYFL_EXPORT size_t tinyfl_native_online_bytes(const tinyfl_online_set *set) { return tinyfl_online_bytes(set); }

TINYFL_EXPORT int tinyfl_native_online_init(tinyfl_online *online, const tinyfl_online_set *set, uint32_t outputs, void *memory)
{
    return tinyfl_online_init(online, set, outputs, memory);
}

TINYFL_EXPORT size_t tinyfl_native_online_learnt_bytes(const tinyfl_online *online) { return tinyfl_online_learnt_bytes(online); }

TINYFL_EXPORT int tinyfl_native_online_restore(tinyfl_online *online, const void *bytes, size_t count)
{
    return tinyfl_online_restore(online, bytes, count);
}

TINYFL_EXPORT int tinyfl_native_online_add(tinyfl_online *online) { return tinyfl_online_add(online); }

TINYFL_EXPORT int tinyfl_native_online_remove(tinyfl_online *online, uint32_t number)
{
    return tinyfl_online_remove(online, number);
}

TINYFL_EXPORT int tinyfl_native_online_replace(tinyfl_online *online, uint32_t outputs, const float *head)
{
    return tinyfl_online_replace(online, outputs, head);
}

TINYFL_EXPORT int tinyfl_native_online_label(tinyfl_online *online, uint32_t sample, uint32_t class_number)
{
    return tinyfl_online_label(online, sample, class_number, NULL);
}

TINYFL_EXPORT uint32_t tinyfl_native_online_wanted(const tinyfl_online *online) { return tinyfl_online_wanted(online); }

/* The sample in `x`, which is standardised in place, by way of the network. */
static int one_sample(const tinyfl_stretch *s, tinyfl_learner *learner, float *x, float *embedding, tinyfl_online_result *result)
{
    const int late = s->online->set.standardised == TINYFL_EMBEDDINGS_STANDARDISED;
    int code = late ? TINYFL_OK : tinyfl_online_enter(s->online, x);
    if (code == TINYFL_OK && s->plan)
        code = tinyfl_infer(learner, x, embedding);
    if (code == TINYFL_OK && late)
        code = tinyfl_online_enter(s->online, embedding);
    return code == TINYFL_OK ? tinyfl_online_sample(s->online, s->plan ? embedding : x, x, result) : code;
}

static int one_label(const tinyfl_stretch *s, uint32_t i, float *loss)
{
    if (s->labelled[i] == 0)
        return TINYFL_OK;
    if (s->online->set.head == TINYFL_HEAD_CLASSES)
        return tinyfl_online_label(s->online, s->labelled[i], s->labels[i], loss);
    return tinyfl_online_target(s->online, s->labelled[i], s->targets + (size_t)i * s->online->set.places, loss);
}

TINYFL_EXPORT int tinyfl_native_online_run(const tinyfl_stretch *s)
{
    const tinyfl_online_set *set = &s->online->set;
    const size_t weights = s->plan ? tinyfl_plan_weights(s->plan) : 0, memory = s->plan ? tinyfl_learner_bytes(s->plan) : 0;
    if (s->plan && (tinyfl_plan_inputs(s->plan) != set->inputs || tinyfl_plan_outputs(s->plan) != set->size))
        return TINYFL_EINVAL;
    float *room = calloc((size_t)set->inputs + set->size + weights + memory / sizeof(float), sizeof(float));
    if (!room)
        return TINYFL_EMEMORY;
    float *x = room, *embedding = x + set->inputs, *theta = embedding + set->size;
    tinyfl_learner learner;
    int code = TINYFL_OK;
    if (s->plan) {
        memcpy(theta, s->theta, weights * sizeof(float));
        code = tinyfl_learner_init(&learner, s->plan, theta, theta + weights, memory, 0.0f);
    }
    for (uint32_t i = 0; i < s->count && code == TINYFL_OK; i++) {
        tinyfl_online_result result = {0};
        memcpy(x, s->x + (size_t)i * set->inputs, set->inputs * sizeof(float));
        s->codes[i] = one_sample(s, &learner, x, embedding, &result);
        s->classes[i] = result.class_number;
        s->confidence[i] = result.confidence;
        s->scores[i] = result.score;
        s->learnt[i] = result.learnt;
        for (uint32_t k = 0; k < s->online->state->outputs && s->codes[i] == TINYFL_OK; k++)
            s->outputs[(size_t)i * set->places + k] = s->online->output[k];
        s->answers[i] = one_label(s, i, &s->losses[i]);
    }
    free(room);
    return code;
}
