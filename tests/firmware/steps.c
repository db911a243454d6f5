/* Trains 16 devices, TINYFL_LANES of them in lockstep, and prints a hash of each one's weights: the same lines, whatever
 * the number of lanes, the compiler and its flags. */
#define TINYFL_API static __attribute__((unused))

#include <stdio.h>

#include "means.c"
#include "prototypes.c"
#include "codec.c"
#include "inner.c"
#include "learner.c"
#include "plan.c"
#include "random.c"
#include "sine.c"

enum { DEVICES = 16, MAX_WEIGHTS = 1300, MAX_BYTES = 600 * (int)sizeof(real), WIDEST = 40 };

typedef struct {
    const char *name;
    tinyfl_layer layers[4];
    uint16_t count;
    uint8_t loss;
    float clip;
    uint32_t batch;
} trial;

#define DENSE(inputs, outputs, activation, learns) {TINYFL_DENSE, activation, learns, 0, 1, 1, inputs, outputs, 1, 1, 1, 1}
#define WINDOWS(kind, activation, learns, same, height, width, channels, outputs, kernel, stride) \
    {kind, activation, learns, same, height, width, channels, outputs, kernel, kernel, stride, stride}

static const trial trials[] = {
    {"tanh",
     {DENSE(1, 32, TINYFL_TANH, 1), DENSE(32, 32, TINYFL_TANH, 1), DENSE(32, 1, TINYFL_IDENTITY, 1)},
     3, TINYFL_MEAN_SQUARED_ERROR, 0, 1},
    {"relu",
     {DENSE(5, 19, TINYFL_RELU, 1), DENSE(19, 11, TINYFL_RELU, 1), DENSE(11, 3, TINYFL_IDENTITY, 1)},
     3, TINYFL_SOFTMAX_CROSS_ENTROPY, 0, 1},
    {"sigmoid",
     {DENSE(9, 8, TINYFL_SIGMOID, 1), DENSE(8, 16, TINYFL_SIGMOID, 1), DENSE(16, 2, TINYFL_TANH, 1)},
     3, TINYFL_MEAN_SQUARED_ERROR, 0, 1},
    {"leaky",
     {DENSE(4, 7, TINYFL_LEAKY_RELU, 1), DENSE(7, 9, TINYFL_LEAKY_RELU, 0), DENSE(9, 5, TINYFL_LEAKY_RELU, 1)},
     3, TINYFL_MEAN_SQUARED_ERROR, 0.05f, 1},
    {"batch",
     {DENSE(3, 7, TINYFL_TANH, 1), DENSE(7, 10, TINYFL_LEAKY_RELU, 1), DENSE(10, 4, TINYFL_IDENTITY, 1)},
     3, TINYFL_SOFTMAX_CROSS_ENTROPY, 0.5f, 6},
    {"conv",
     {WINDOWS(TINYFL_CONV, TINYFL_LEAKY_RELU, 1, 1, 5, 5, 1, 9, 3, 2),
      WINDOWS(TINYFL_MAX_POOL, TINYFL_IDENTITY, 0, 0, 3, 3, 9, 9, 2, 1), DENSE(36, 3, TINYFL_IDENTITY, 1)},
     3, TINYFL_SOFTMAX_CROSS_ENTROPY, 0, 1},
    {"depthwise",
     {WINDOWS(TINYFL_DEPTHWISE, TINYFL_TANH, 1, 0, 5, 4, 2, 4, 2, 1),
      WINDOWS(TINYFL_CONV, TINYFL_RELU, 1, 1, 4, 3, 4, 5, 1, 1),
      WINDOWS(TINYFL_AVERAGE_POOL, TINYFL_IDENTITY, 0, 1, 4, 3, 5, 5, 3, 2), DENSE(20, 2, TINYFL_IDENTITY, 1)},
     4, TINYFL_SIGMOID_CROSS_ENTROPY, 0, 5},
    {"head",
     {WINDOWS(TINYFL_CONV, TINYFL_RELU, 0, 1, 6, 6, 1, 4, 3, 2),
      WINDOWS(TINYFL_CONV, TINYFL_SIGMOID, 1, 1, 3, 3, 4, 6, 2, 1), DENSE(54, 3, TINYFL_IDENTITY, 1)},
     3, TINYFL_MEAN_SQUARED_ERROR, 0.5f, 1},
};

static real weights[MAX_WEIGHTS], gradient[2 * MAX_WEIGHTS], memory[MAX_BYTES / sizeof(real)], x[WIDEST], y[WIDEST];

static void draw(const trial *t, tinyfl_word device, uint32_t step)
{
    const size_t inputs = inputs_of(&t->layers[0]), outputs = outputs_of(&t->layers[t->count - 1]);
    if (inputs == 1) {
        tinyfl_sine_sample(tinyfl_sine_of(7, device), 7, device, 3, step, x, y);
        return;
    }
    tinyfl_word bits[4];
    for (size_t i = 0; i < inputs + outputs; i++) {
        tinyfl_random(7, TINYFL_STREAM_SAMPLE, device, step, (uint32_t)i, bits);
        *(i < inputs ? &x[i] : &y[i - inputs]) = tinyfl_uniform(bits[0]) * 4.0f - 2.0f;
    }
    if (t->loss == TINYFL_SOFTMAX_CROSS_ENTROPY)
        for (int l = 0; l < TINYFL_LANES; l++) {
            const size_t label = lane(x[0], l) > 0.0f ? (lane(x[1], l) > 0.0f ? 0 : 1) : 2;
            for (size_t j = 0; j < outputs; j++)
                set_lane(&y[j], l, j == label ? 1.0f : 0.0f);
        }
}

/* Device 5 of the leaky trial draws a NaN half way: it is out, and its neighbours must not notice. */
static void spoil(const trial *t, int first, uint32_t step, uint32_t steps)
{
    if (t->clip == 0.05f && step == steps / 2 && first <= 5 && 5 < first + TINYFL_LANES)
        set_lane(&x[0], 5 - first, __builtin_nanf(""));
}

/* Prints what became of each lane. */
static void show(const char *name, int first, const real *values, size_t count, mask alive, real sum)
{
    for (int l = 0; l < TINYFL_LANES; l++) {
        uint64_t hash = 0xcbf29ce484222325u;
        for (size_t i = 0; i < count; i++) {
            const float w = lane(values[i], l);
            uint32_t b;
            memcpy(&b, &w, sizeof b);
            hash = (hash ^ b) * 0x100000001b3u;
        }
        if (lane_of_mask(alive, l))
            printf("%s %d %016llx %a\n", name, first + l, (unsigned long long)hash, (double)lane(sum, l));
        else
            printf("%s %d out\n", name, first + l);
    }
}

/* Draws the weights; their number. */
static size_t initial(const tinyfl_plan *plan, int first, tinyfl_word *device)
{
    const size_t count = tinyfl_plan_weights(plan);
    tinyfl_word bits[4];
    for (int l = 0; l < TINYFL_LANES; l++)
        set_word(device, l, (uint32_t)(first + l));
    for (size_t i = 0; i < count; i++) {
        tinyfl_random(7, TINYFL_STREAM_WEIGHTS, *device, 0, (uint32_t)i, bits);
        weights[i] = 0.5f * tinyfl_uniform(bits[1]) - 0.25f;
    }
    return count;
}

/* Four phases, with every kind of step, and the gradient of the last. */
static void loop_over(const trial *t, int first)
{
    const tinyfl_inner inner = {.count = 4,
                                .returns = TINYFL_GRADIENT,
                                .phases = {{20, 1, 2, 0.02f, 0.0f, 4.0f, TINYFL_EVERY_LAYER},
                                           {20, 1, 1, 0.02f, 0.5f, 0.0f, 1u << (t->count - 1)},
                                           {25, 4, 2, 0.05f, 0.0f, 0.5f, 1u},
                                           {9, 1, 1, 0.0f, 0.0f, 0.0f, TINYFL_EVERY_LAYER}}};
    const tinyfl_plan plan = {t->layers, t->count, t->loss};
    tinyfl_word device = {0};
    const size_t count = initial(&plan, first, &device);
    tinyfl_learner learner;
    tinyfl_loop loop = {.inner = &inner};
    int code = tinyfl_learner_init(&learner, &plan, weights, memory, sizeof memory, 0.0f);
    if (code == TINYFL_OK)
        code = tinyfl_loop_init(&loop, &inner, &learner, gradient);
    while (code == TINYFL_OK && !tinyfl_loop_done(&loop)) {
        draw(t, device, (uint32_t)tinyfl_loop_index(&loop));
        code = tinyfl_loop_learn(&loop, x, y);
    }
    show(t->name, first, weights, count, code == TINYFL_OK ? learner.alive : none(), loop.loss);
}

static void train(const trial *t, int first, uint32_t steps)
{
    const tinyfl_plan plan = {t->layers, t->count, t->loss};
    tinyfl_word device = {0};
    const size_t count = initial(&plan, first, &device);
    for (size_t i = 0; i < count; i++)
        gradient[i] = real_of(0.0f);

    tinyfl_learner learner;
    real loss = real_of(0.0f), sum = real_of(0.0f);
    int code = tinyfl_learner_init(&learner, &plan, weights, memory, sizeof memory, t->clip);
    for (uint32_t step = 0; step < steps && code == TINYFL_OK; step++) {
        draw(t, device, step);
        spoil(t, first, step, steps);
        if (t->batch == 1) {
            code = tinyfl_learn(&learner, x, y, 0.02f, &loss);
        } else {
            code = tinyfl_accumulate(&learner, x, y, gradient, &loss);
            if (code == TINYFL_OK && step % t->batch == t->batch - 1)
                code = tinyfl_step(&learner, gradient, 0.05f, t->batch);
        }
        sum += loss;
    }
    show(t->name, first, weights, count, code == TINYFL_OK ? learner.alive : none(), sum);
}

int main(void)
{
    for (size_t t = 0; t < sizeof trials / sizeof *trials; t++)
        for (int first = 0; first < DEVICES; first += TINYFL_LANES)
            train(&trials[t], first, 1000);
    for (size_t t = 0; t < sizeof trials / sizeof *trials; t++)
        for (int first = 0; first < DEVICES; first += TINYFL_LANES)
            loop_over(&trials[t], first);
    return 0;
}
