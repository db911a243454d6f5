/* Trains random networks, TINYFL_LANES devices in lockstep, and prints a hash of every weight after them: with the host's
 * kernels (-DTINYFL_KERNELS='"kernels.h"') the same lines as with the plain ones.
 *
 *     tiles SEED COUNT */
#define TINYFL_API static __attribute__((unused))

#include <stdio.h>
#include <stdlib.h>

#include "means.c"
#include "prototypes.c"
#include "codec.c"
#include "inner.c"
#include "learner.c"
#include "plan.c"
#include "random.c"
#include "sine.c"

static uint64_t state;

/* A number from 0 to `below` - 1 (SplitMix64). */
static size_t draw(size_t below)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (size_t)((z ^ z >> 31) % below);
}

/* Reals from -1 to 1, each lane's its own; some are 0, and of both signs. */
static void fill(real *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (int l = 0; l < TINYFL_LANES; l++) {
            const float value = (float)(draw(2001)) * 1e-3f - 1.0f;
            set_lane(&values[i], l, draw(5) ? value : draw(2) ? 0.0f : -0.0f);
        }
}

static tinyfl_layer random_layer(size_t height, size_t width, size_t channels)
{
    const uint8_t kinds[] = {TINYFL_CONV, TINYFL_CONV, TINYFL_DEPTHWISE, TINYFL_DENSE, TINYFL_MAX_POOL, TINYFL_AVERAGE_POOL};
    tinyfl_layer l = {.kind = kinds[draw(6)], .activation = (uint8_t)draw(TINYFL_ACTIVATIONS), .learns = draw(6) > 0};
    l.outputs = (uint16_t)(1 + draw(20));
    if (l.kind == TINYFL_DENSE) {
        l.height = l.width = 1;
        l.channels = (uint16_t)(height * width * channels);
        l.kernel_height = l.kernel_width = l.stride_height = l.stride_width = 1;
        return l;
    }
    l.same = (uint8_t)draw(2);
    l.height = (uint16_t)height;
    l.width = (uint16_t)width;
    l.channels = (uint16_t)channels;
    l.kernel_height = (uint8_t)(1 + draw(5));
    l.kernel_width = (uint8_t)(1 + draw(5));
    l.stride_height = (uint8_t)(1 + draw(3));
    l.stride_width = (uint8_t)(1 + draw(3));
    if (l.kind != TINYFL_CONV)
        l.outputs = (uint16_t)(channels * (l.kind == TINYFL_DEPTHWISE ? 1 + draw(2) : 1));
    if (is_pool(&l))
        l.activation = l.learns = 0;
    return l;
}

/* A network that the core accepts. */
static tinyfl_plan random_plan(tinyfl_layer *layers)
{
    for (;;) {
        tinyfl_plan plan = {layers, (uint16_t)(1 + draw(4)), (uint8_t)draw(3)};
        size_t height = 1 + draw(11), width = 1 + draw(11), channels = 1 + draw(20);
        int sound = 1;
        for (size_t i = 0; i < plan.count && sound; i++) {
            layers[i] = random_layer(height, width, channels);
            const tinyfl_plan one = {&layers[i], 1, plan.loss};
            sound = tinyfl_plan_check(&one) == TINYFL_OK && outputs_of(&layers[i]) < 3000;
            if (sound) {
                height = layers[i].kind == TINYFL_DENSE ? 1 : rows_of(&layers[i]).count;
                width = layers[i].kind == TINYFL_DENSE ? 1 : columns_of(&layers[i]).count;
                channels = layers[i].outputs;
            }
        }
        if (sound && tinyfl_plan_check(&plan) == TINYFL_OK && tinyfl_plan_weights(&plan) < 40000)
            return plan;
    }
}

static uint64_t hash_of(const real *values, size_t count)
{
    uint64_t hash = 14695981039346656037u;
    const uint8_t *bytes = (const uint8_t *)values;
    for (size_t i = 0; i < count * sizeof *values; i++)
        hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

static void *reals(size_t count)
{
    void *memory = aligned_alloc(sizeof(real), count * sizeof(real));
    if (!memory)
        exit(1);
    memset(memory, 0, count * sizeof(real));
    return memory;
}

static void train(void)
{
    tinyfl_layer layers[4];
    const tinyfl_plan plan = random_plan(layers);
    const size_t weights = tinyfl_plan_weights(&plan), inputs = tinyfl_plan_inputs(&plan), outputs = tinyfl_plan_outputs(&plan);
    const tinyfl_inner inner = {
        .count = 1,
        .phases[0] = {.samples = 3, .batch = (uint32_t)(1 + draw(3)), .passes = 1, .rate = 0.0625f, .clip = draw(2) ? 1.0f : 0.0f,
                      .pull = draw(3) ? 0.0f : 0.5f, .layers = draw(3) ? TINYFL_EVERY_LAYER : draw(16)}};
    size_t most = 0;
    for (size_t i = 0; i < plan.count; i++)
        most = layers[i].outputs > most ? layers[i].outputs : most;
    /* As the engine lays it out: one block, with the padding for one lane's chunks at its end (simulators/native). */
    real *block = reals(3 * weights + inputs + outputs + tinyfl_learner_reals(&plan) + 8 * (most + 1));
    real *x = block + weights, *y = x + inputs, *memory = y + outputs;
    tinyfl_learner learner;
    tinyfl_loop loop;
    fill(block, weights);
    int code = tinyfl_learner_init(&learner, &plan, block, memory, tinyfl_learner_bytes(&plan), 0.0f);
    if (code == TINYFL_OK)
        code = tinyfl_loop_init(&loop, &inner, &learner, memory + learner.reals);
    while (code == TINYFL_OK && !tinyfl_loop_done(&loop)) {
        fill(x, inputs);
        fill(y, outputs);
        code = tinyfl_loop_learn(&loop, x, y);
    }
    printf("%d layers, %zu weights: %d %016llx\n", plan.count, weights, code, (unsigned long long)hash_of(block, weights));
    free(block);
}

int main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    state = strtoull(arguments[1], NULL, 10);
    for (long i = strtol(arguments[2], NULL, 10); i > 0; i--)
        train();
    return 0;
}
