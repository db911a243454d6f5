/* Calls the core as a hostile or careless caller would: fuzz SEED CALLS. Every call must return the code that its header
 * documents for what was passed, write nothing outside its buffers, and leave no weight that is not finite. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tinyfl.h"

enum { MAX_LAYERS = 5, MAX_WEIGHTS = 600, MAX_VALUES = 1000, MAX_WORK = 8000, FENCE = 32, FENCE_BYTE = 0xa5 };

static uint32_t state;
static unsigned long calls, answers[6];

static uint32_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
}

static uint32_t below(uint32_t limit) { return draw() % limit; }
static int chance(uint32_t in) { return below(in) == 0; }

#define REQUIRE(condition)                                                                 \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            printf("line %d: %s (call %lu)\n", __LINE__, #condition, calls);               \
            exit(1);                                                                       \
        }                                                                                  \
    } while (0)

static int answered(int code)
{
    calls++;
    REQUIRE(code <= 0 && code >= TINYFL_EOVERSIZED);
    answers[-code]++;
    return code;
}

/* A buffer of just `bytes`: half of them end where the heap block does, for the sanitizer, and half between fences. */
typedef struct {
    unsigned char *block;
    size_t bytes, fence;
} room;

static room room_of(size_t bytes)
{
    room r = {NULL, bytes, chance(2) ? FENCE : 0};
    r.block = malloc(bytes + 2 * r.fence);
    if (!r.block)
        abort();
    memset(r.block, FENCE_BYTE, bytes + 2 * r.fence);
    return r;
}

static void *inside(room r) { return r.block + r.fence; }

static void check(room r)
{
    for (size_t i = 0; i < r.fence; i++)
        REQUIRE(r.block[i] == FENCE_BYTE && r.block[r.fence + r.bytes + i] == FENCE_BYTE);
}

static float bits_as_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Mostly tame, so that calls get deep; the rest any bits at all, or the edges. */
static float number(int hostile)
{
    static const float edges[] = {0.0f, -0.0f, 1e-45f, 1.1754942e-38f, 1.1258998e15f,
                                  TINYFL_LIMIT, -TINYFL_LIMIT, 3.4e38f, -1e10f, 1e7f};
    if (hostile && chance(8))
        return edges[below(sizeof edges / sizeof *edges)];
    if (hostile && chance(30))
        return bits_as_float(draw());
    if (hostile && chance(60))
        return bits_as_float(chance(2) ? 0x7f800000u : 0x7fc00001u);
    return (float)below(2001) / 500.0f - 2.0f;
}

static void fill(room r, int hostile)
{
    float *values = inside(r);
    for (size_t i = 0; i < r.bytes / sizeof *values; i++)
        values[i] = number(hostile);
}

static int finite(float value) { return value - value == 0.0f; }

static int all_finite(room r)
{
    const float *values = inside(r);
    for (size_t i = 0; i < r.bytes / sizeof *values; i++)
        if (!finite(values[i]))
            return 0;
    return 1;
}

/* How many windows fit along a side. */
static uint64_t windows(uint64_t size, uint64_t kernel, uint64_t stride, int same)
{
    uint64_t count = 0;
    for (uint64_t start = 0; same ? start < size : start + kernel <= size; start += stride)
        count++;
    return count;
}

typedef struct {
    uint64_t inputs, outputs, weights, work;
} sizes;

static int is_pool(const tinyfl_layer *l) { return l->kind == TINYFL_MAX_POOL || l->kind == TINYFL_AVERAGE_POOL; }

/* Of a layer that has none of its numbers out of range; work: multiplications forward. */
static sizes sizes_of(const tinyfl_layer *l)
{
    const uint64_t places = windows(l->height, l->kernel_height, l->stride_height, l->same) *
                            windows(l->width, l->kernel_width, l->stride_width, l->same);
    const int all_channels = l->kind == TINYFL_CONV || l->kind == TINYFL_DENSE;
    const uint64_t each = (uint64_t)l->kernel_height * l->kernel_width * (all_channels ? l->channels : 1);
    return (sizes){.inputs = (uint64_t)l->height * l->width * l->channels,
                   .outputs = places * l->outputs,
                   .weights = is_pool(l) ? 0 : (each + 1) * l->outputs,
                   .work = places * l->outputs * each};
}

static int sound(const tinyfl_layer *l)
{
    const int one = l->height == 1 && l->width == 1 && l->kernel_height == 1 && l->kernel_width == 1 &&
                    l->stride_height == 1 && l->stride_width == 1 && !l->same;
    return l->kind < 5 && l->activation < TINYFL_ACTIVATIONS && l->learns < 2 && l->same < 2 && l->height && l->width &&
           l->channels && l->outputs && l->kernel_height && l->kernel_width && l->stride_height && l->stride_width &&
           (l->kind != TINYFL_DENSE || one) && (l->kind != TINYFL_DEPTHWISE || l->outputs % l->channels == 0) &&
           (!is_pool(l) || (l->outputs == l->channels && l->activation == 0 && !l->learns)) && sizes_of(l).outputs > 0;
}

/* All layers together; only of a plan whose layers are sound. */
static sizes sizes_of_all(const tinyfl_plan *plan)
{
    sizes all = {.inputs = sizes_of(&plan->layers[0]).inputs};
    for (int i = 0; i < plan->count; i++) {
        const sizes one = sizes_of(&plan->layers[i]);
        all.outputs += one.outputs;
        all.weights += one.weights;
        all.work += one.work;
    }
    return all;
}

/* SPEC.md's rule for plans, said again. */
static int plan_code(const tinyfl_plan *plan)
{
    if (!plan || !plan->layers)
        return TINYFL_EINVAL;
    if (plan->count < 1 || plan->count > 64 || plan->loss > 3)
        return TINYFL_EPLAN;
    for (int i = 0; i < plan->count; i++)
        if (!sound(&plan->layers[i]) ||
            (i && sizes_of(&plan->layers[i]).inputs != sizes_of(&plan->layers[i - 1]).outputs))
            return TINYFL_EPLAN;
    const sizes all = sizes_of_all(plan);
    return all.inputs > 1 << 24 || all.outputs > 1 << 24 || all.weights > 1 << 24 ? TINYFL_EPLAN : TINYFL_OK;
}

/* Mostly small, now and then none or as large as it gets. */
static uint16_t size(uint32_t most)
{
    return (uint16_t)(chance(100) ? (chance(2) ? 65535 : draw()) : chance(150) ? 0 : 1 + below(most));
}

static uint8_t small(uint32_t most) { return (uint8_t)(chance(100) ? draw() : 1 + below(most)); }

/* A layer of any kind on an input of the given height, width and channels. */
static tinyfl_layer draw_layer(const uint16_t in[3])
{
    tinyfl_layer l = {.kind = (uint8_t)below(5), .activation = (uint8_t)below(TINYFL_ACTIVATIONS), .learns = (uint8_t)below(2),
                      .same = (uint8_t)below(2), .height = in[0], .width = in[1], .channels = in[2], .outputs = size(12),
                      .kernel_height = small(4), .kernel_width = small(4), .stride_height = small(3), .stride_width = small(3)};
    if (l.kind == TINYFL_DENSE) {
        const uint32_t inputs = (uint32_t)in[0] * in[1] * in[2];
        l.channels = (uint16_t)(inputs < 65536 ? inputs : 1);
        l.height = l.width = 1;
        l.same = 0;
        l.kernel_height = l.kernel_width = l.stride_height = l.stride_width = 1;
    } else if (l.kind == TINYFL_DEPTHWISE) {
        l.outputs = (uint16_t)(l.channels * (1 + below(3)));
    } else if (is_pool(&l)) {
        l.outputs = l.channels;
        l.activation = l.learns = 0;
    }
    return l;
}

static void draw_plan(tinyfl_plan *plan, tinyfl_layer layers[64])
{
    memset(layers, 0, 64 * sizeof *layers);
    *plan = (tinyfl_plan){chance(100) ? NULL : layers, (uint16_t)(1 + below(MAX_LAYERS)), (uint8_t)below(4)};
    if (chance(60))
        plan->count = (uint16_t)(chance(2) ? draw() : below(66));
    if (chance(60))
        plan->loss = (uint8_t)draw();
    uint16_t in[3] = {size(7), size(7), size(3)};
    for (int i = 0; i < (plan->count < 64 ? plan->count : 64); i++) {
        layers[i] = draw_layer(in);
        if (chance(100))
            ((uint8_t *)&layers[i])[below(sizeof *layers)] = (uint8_t)draw();
        const tinyfl_layer *l = &layers[i];
        if (!sound(l))
            continue;
        in[0] = (uint16_t)windows(l->height, l->kernel_height, l->stride_height, l->same);
        in[1] = (uint16_t)windows(l->width, l->kernel_width, l->stride_width, l->same);
        in[2] = l->outputs;
    }
}

/* Now and then NULL or not aligned. */
static float *spoilt(room r)
{
    return chance(100) ? NULL : chance(100) ? (float *)(void *)((unsigned char *)inside(r) + 1 + below(3)) : inside(r);
}

static int fit(const float *pointer) { return pointer && (uintptr_t)pointer % sizeof(float) == 0; }

static float factor(void) { return chance(20) ? number(1) : chance(8) ? 1e6f : (float)below(100) / 100.0f; }

static int good_factor(float value) { return value >= 0.0f && value < TINYFL_LIMIT; }

typedef struct {
    tinyfl_learner learner;
    room weights, memory, gradient, x, y, output, before;
} subject;

static int start(subject *s, const tinyfl_plan *plan)
{
    const size_t need = tinyfl_learner_bytes(plan);
    float *weights = spoilt(s->weights), *memory = spoilt(s->memory);
    const size_t bytes = chance(50) ? below((uint32_t)need) : need;
    const float clip = chance(2) ? 0.0f : factor();
    tinyfl_learner *learner = chance(100) ? NULL : &s->learner;
    const int code = answered(tinyfl_learner_init(learner, plan, weights, memory, bytes, clip));
    if (!learner || !fit(weights) || !fit(memory) || !good_factor(clip))
        REQUIRE(code == TINYFL_EINVAL);
    else if (bytes < need)
        REQUIRE(code == TINYFL_EMEMORY);
    else
        REQUIRE(code == TINYFL_OK || code == TINYFL_ENUMERIC);
    REQUIRE(code != TINYFL_OK || all_finite(s->weights));
    return code;
}

/* One call on a learner that has been initialised. */
static void call(subject *s, int hostile)
{
    fill(s->x, hostile);
    fill(s->y, hostile);
    memcpy(inside(s->before), inside(s->weights), s->weights.bytes);
    const int was_alive = s->learner.alive;
    tinyfl_learner *learner = chance(100) ? NULL : &s->learner;
    float *x = spoilt(s->x), *y = spoilt(s->y), *output = spoilt(s->output), *gradient = spoilt(s->gradient);
    room of_loss = room_of(sizeof(float));
    float *loss = chance(3) ? NULL : spoilt(of_loss);
    const float rate = factor();
    const uint32_t samples = chance(20) ? 0 : chance(20) ? draw() : 1 + below(8);
    const int one = learner && learner->plan->loss != TINYFL_PROTOTYPES; /* a sample has a loss by itself */
    int code, valid = learner != NULL, moves = 0;

    switch (below(5)) {
    case 0:
        code = tinyfl_infer(learner, x, output);
        valid = valid && fit(x) && fit(output);
        break;
    case 1:
        code = tinyfl_evaluate(learner, x, y, loss, output);
        valid = one && fit(x) && fit(y) && fit(loss) && (!output || fit(output));
        break;
    case 2:
        code = tinyfl_learn(learner, x, y, rate, loss);
        valid = one && fit(x) && fit(y) && (!loss || fit(loss)) && good_factor(rate);
        moves = 1;
        break;
    case 3:
        code = tinyfl_accumulate(learner, x, y, gradient, loss);
        valid = one && fit(x) && fit(y) && (!loss || fit(loss)) && fit(gradient);
        break;
    default:
        if (hostile && chance(10))
            fill(s->gradient, 1);
        code = tinyfl_step(learner, gradient, rate, samples);
        valid = valid && fit(gradient) && samples > 0 && good_factor(rate);
        moves = 1;
        break;
    }
    answered(code);

    REQUIRE(code == TINYFL_OK || code == TINYFL_EINVAL || code == TINYFL_ENUMERIC);
    REQUIRE((code == TINYFL_EINVAL) == !valid);
    REQUIRE(was_alive || code != TINYFL_OK);
    REQUIRE(all_finite(s->weights));
    if (!moves || (code != TINYFL_OK && (s->learner.alive || !was_alive)))
        REQUIRE(memcmp(inside(s->before), inside(s->weights), s->weights.bytes) == 0);
    check(of_loss);
    free(of_loss.block);
}

static int not_minus_0(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits != 0x80000000u;
}

/* SPEC.md's rule for inner loops, said again. */
static int inner_code(const tinyfl_inner *inner)
{
    uint64_t samples = 0;
    int good = inner->count >= 1 && inner->count <= 4 && inner->returns <= 1 && inner->kept <= 1;
    for (int i = 0; good && i < inner->count; i++) {
        const tinyfl_phase *p = &inner->phases[i];
        samples += p->samples;
        good = p->samples && p->batch && p->passes && good_factor(p->rate) && good_factor(p->clip) && good_factor(p->pull) &&
               p->rate * p->pull <= 1.0f && not_minus_0(p->rate) && not_minus_0(p->clip) && not_minus_0(p->pull);
        if (p->support || p->ways)
            good = good && p->ways && p->ways <= p->support && p->support < p->samples &&
                   (uint64_t)p->samples + p->support < 1ull << 32;
    }
    if (good && inner->returns)
        good = inner->phases[inner->count - 1].passes == 1;
    return good && samples < 1ull << 32 ? TINYFL_OK : TINYFL_EINVAL;
}

/* SPEC.md's rule for inner loops of a plan, said again: of a good plan and a good inner loop. */
static int fits(const tinyfl_plan *plan, const tinyfl_inner *inner)
{
    const uint64_t outputs = sizes_of(&plan->layers[plan->count - 1]).outputs;
    for (int i = 0; i < inner->count; i++) {
        const uint64_t ways = inner->phases[i].ways;
        if ((ways > 0) != (plan->loss == TINYFL_PROTOTYPES) || ways > outputs || ways * outputs > 1u << 24)
            return 0;
    }
    return 1;
}

/* For prototypes or not, now and then for both. */
static tinyfl_inner draw_inner(int tame, int prototypes)
{
    tinyfl_inner inner = {.count = (uint8_t)(1 + below(4)), .returns = (uint8_t)below(2), .kept = (uint8_t)below(2),
                          .local = draw()};
    for (int i = 0; i < 4; i++) {
        tinyfl_phase *p = &inner.phases[i];
        *p = (tinyfl_phase){.samples = !tame && chance(20) ? draw() : 1 + below(5),
                            .batch = 1 + below(3),
                            .passes = !tame && chance(20) ? below(2) : 1 + below(2),
                            .rate = tame ? (float)below(100) / 1000.0f : factor(),
                            .clip = tame ? 1.0f : factor(),
                            .pull = chance(2) ? 0.0f : tame ? 10.0f : factor(),
                            .layers = chance(2) ? TINYFL_EVERY_LAYER : draw()};
        if (chance(30) ? !prototypes : prototypes) {
            p->support = !tame && chance(20) ? draw() : 1 + below(3);
            p->samples += p->support;
            p->ways = !tame && chance(20) ? draw() : 1 + below(p->support < 3 ? p->support : 3);
        }
    }
    if (inner.returns && !chance(10))
        inner.phases[inner.count - 1].passes = 1;
    return inner;
}

/* An inner loop as bytes, whole or not quite. */
static void read_inner(void)
{
    tinyfl_inner drawn = draw_inner(chance(2), chance(2)), read;
    if (chance(10))
        drawn.returns = (uint8_t)draw();
    if (chance(10))
        drawn.kept = (uint8_t)draw();
    uint8_t made[16 + 4 * sizeof(tinyfl_phase)] = {drawn.count, drawn.returns, drawn.kept, drawn.up.kind};
    memcpy(made + 4, &drawn.up.share, sizeof drawn.up.share);
    const size_t whole = 16 + drawn.count * sizeof(tinyfl_phase), bytes = chance(10) ? below(sizeof made) : whole;
    memcpy(made + 8, &drawn.local, sizeof drawn.local);
    memcpy(made + 16, drawn.phases, sizeof drawn.phases);
    const int padded = chance(10);
    if (padded)
        made[6 + below(2)] = 1;
    const room r = room_of(bytes);
    memcpy(inside(r), made, bytes);
    REQUIRE(answered(tinyfl_inner_read(&read, NULL, bytes)) == TINYFL_EINVAL);
    REQUIRE(answered(tinyfl_inner_read(NULL, inside(r), bytes)) == TINYFL_EINVAL);
    const int code = answered(tinyfl_inner_read(&read, inside(r), bytes));
    REQUIRE(code == (bytes != whole || padded ? TINYFL_EINVAL : inner_code(&drawn)));
    REQUIRE(code != TINYFL_OK || (read.local == drawn.local && read.count == drawn.count));
    check(r);
    free(r.block);
}

/* Steps of a loop until its end, or that of the learner; how many samples it has learnt from. */
static uint64_t run_loop(subject *s, tinyfl_loop *loop, int hostile)
{
    uint64_t learnt = 0;
    for (int tries = 0; s->learner.alive && !tinyfl_loop_done(loop) && tries < 100; tries++) {
        fill(s->x, hostile);
        fill(s->y, hostile);
        const float *x = spoilt(s->x), *y = spoilt(s->y);
        REQUIRE(tinyfl_loop_index(loop) < tinyfl_inner_samples(loop->inner));
        const int code = answered(tinyfl_loop_learn(loop, x, y));
        REQUIRE(code == TINYFL_OK || code == TINYFL_EINVAL || code == TINYFL_ENUMERIC);
        REQUIRE((code == TINYFL_EINVAL) == !(fit(x) && fit(y)));
        REQUIRE(all_finite(s->weights));
        learnt += code == TINYFL_OK;
    }
    return learnt;
}

/* An inner loop of an initialised learner. */
static void loop_over(subject *s, int hostile)
{
    const tinyfl_plan *plan = s->learner.plan;
    const tinyfl_inner inner = draw_inner(chance(2), plan->loss == TINYFL_PROTOTYPES);
    tinyfl_loop loop;
    const int valid = inner_code(&inner) == TINYFL_OK && fits(plan, &inner);
    REQUIRE(inner_code(&inner) != TINYFL_OK || tinyfl_inner_fits(plan, &inner) == valid);
    const size_t bytes = valid ? tinyfl_loop_bytes(s->learner.plan, &inner) : 4;
    const room memory = room_of(bytes);
    float *at = bytes > 0 ? spoilt(memory) : inside(memory);
    tinyfl_learner *learner = chance(100) ? NULL : &s->learner;
    const int code = answered(tinyfl_loop_init(&loop, &inner, learner, at));
    REQUIRE((code == TINYFL_OK) == (valid && learner && fit(at)));
    if (code == TINYFL_OK) {
        const uint64_t learnt = run_loop(s, &loop, hostile);
        REQUIRE(tinyfl_loop_done(&loop) == (learnt == tinyfl_inner_total(&inner)));
        if (tinyfl_loop_done(&loop))
            REQUIRE(answered(tinyfl_loop_learn(&loop, inside(s->x), inside(s->y))) == TINYFL_EINVAL);
    }
    check(memory);
    free(memory.block);
}

/* The weights of some layers, and those of the others, are all weights. */
static void move_layers(subject *s)
{
    const tinyfl_plan *plan = s->learner.plan;
    const uint64_t layers = draw();
    const room some = room_of(tinyfl_layers_weights(plan, layers) * sizeof(float));
    tinyfl_layers_gather(plan, layers, inside(s->weights), inside(some));
    memcpy(inside(s->before), inside(s->weights), s->weights.bytes);
    tinyfl_layers_gather(plan, ~layers, inside(s->before), inside(s->before));
    tinyfl_layers_scatter(plan, ~layers, inside(s->before), inside(s->gradient));
    tinyfl_layers_scatter(plan, layers, inside(some), inside(s->gradient));
    REQUIRE(memcmp(inside(s->gradient), inside(s->weights), s->weights.bytes) == 0);
    check(some);
    free(some.block);
}

static void exercise(const tinyfl_plan *plan)
{
    const size_t weights = tinyfl_plan_weights(plan) * sizeof(float);
    const int hostile = !chance(3);
    const size_t outputs = tinyfl_plan_outputs(plan) * sizeof(float);
    subject s = {.weights = room_of(weights),
                 .memory = room_of(tinyfl_learner_bytes(plan)),
                 .gradient = room_of(weights),
                 .x = room_of(tinyfl_plan_inputs(plan) * sizeof(float)),
                 .y = room_of(outputs),
                 .output = room_of(outputs),
                 .before = room_of(weights)};
    fill(s.weights, hostile && chance(10));
    memset(inside(s.gradient), 0, weights);
    if (start(&s, plan) == TINYFL_OK)
        for (uint32_t n = below(40); n > 0; n--) {
            call(&s, hostile);
            if (!s.learner.alive && chance(3) && start(&s, plan) == TINYFL_OK)
                REQUIRE(s.learner.alive);
        }
    for (uint32_t n = below(4); n > 0 && start(&s, plan) == TINYFL_OK; n--) {
        loop_over(&s, hostile);
        move_layers(&s);
    }
    const room rooms[] = {s.weights, s.memory, s.gradient, s.x, s.y, s.output, s.before};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) {
        check(rooms[i]);
        free(rooms[i].block);
    }
}

static int practicable(const tinyfl_plan *plan)
{
    const sizes all = sizes_of_all(plan);
    return all.inputs <= MAX_VALUES && all.outputs <= MAX_VALUES && all.weights <= MAX_WEIGHTS && all.work <= MAX_WORK;
}

/* The same plan as bytes, whole or not quite. */
static void read_bytes(const tinyfl_plan *plan)
{
    const size_t whole = 8 + plan->count * sizeof(tinyfl_layer);
    const size_t bytes = chance(10) ? below(2 * (uint32_t)whole) : whole;
    if (!plan->layers || plan->count > 64)
        return;
    const room r = room_of(bytes);
    uint8_t made[8 + 64 * sizeof(tinyfl_layer)] = {'T', 'F', 'L', 'P', 2, plan->loss, (uint8_t)plan->count, 0};
    memcpy(made + 8, plan->layers, plan->count * sizeof(tinyfl_layer));
    const int spoilt = chance(10);
    if (spoilt)
        made[below(5)]++;
    memcpy(inside(r), made, bytes < whole ? bytes : whole);
    tinyfl_plan read = {0};
    REQUIRE(answered(tinyfl_plan_read(chance(50) ? NULL : &read, NULL, bytes)) == TINYFL_EINVAL);
    const int code = answered(tinyfl_plan_read(&read, inside(r), bytes));
    REQUIRE(code == (bytes != whole || spoilt ? TINYFL_EPLAN : plan_code(plan)));
    REQUIRE((read.layers != NULL) == (code == TINYFL_OK));
    REQUIRE(code != TINYFL_OK || (read.count == plan->count && read.loss == plan->loss));
    check(r);
    free(r.block);
}

int main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    state = (uint32_t)strtoul(arguments[1], NULL, 10) * 2654435761u + 1;
    const unsigned long wanted = strtoul(arguments[2], NULL, 10);
    while (calls < wanted) {
        tinyfl_layer layers[64];
        tinyfl_plan drawn;
        draw_plan(&drawn, layers);
        const tinyfl_plan *plan = chance(100) ? NULL : &drawn;
        const int code = answered(tinyfl_plan_check(plan));
        REQUIRE(code == plan_code(plan));
        REQUIRE((tinyfl_learner_bytes(plan) > 0) == (code == TINYFL_OK));
        REQUIRE(tinyfl_plan_weights(plan) == (code == TINYFL_OK ? sizes_of_all(plan).weights : 0));
        REQUIRE(tinyfl_plan_inputs(plan) == (code == TINYFL_OK ? sizes_of_all(plan).inputs : 0));
        read_bytes(&drawn);
        read_inner();
        tinyfl_learner learner;
        if (code != TINYFL_OK)
            REQUIRE(answered(tinyfl_learner_init(&learner, plan, NULL, NULL, 0, 0.0f)) == code);
        else if (practicable(plan))
            exercise(plan);
    }
    printf("ok %lu einval %lu eplan %lu ememory %lu enumeric %lu\n",
           answers[0], answers[1], answers[2], answers[3], answers[4]);
    return 0;
}
