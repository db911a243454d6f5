/* Calls online learning as a hostile or careless caller would: fuzz_online SEED CALLS. Every call must return a code that its
 * header documents, write nothing outside its memory (the sanitizer knows), and change nothing that is learnt when it refuses. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "online.h"

static uint32_t state;

static uint32_t draw(uint32_t limit)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % limit;
}

#define REQUIRE(condition)                                    \
    do {                                                      \
        if (!(condition)) {                                   \
            printf("line %d: %s\n", __LINE__, #condition);    \
            exit(1);                                          \
        }                                                     \
    } while (0)

static float number(void)
{
    static const float edges[] = {0.0f, -0.0f, 1e-45f, TINYFL_LIMIT, -TINYFL_LIMIT, 1.1e15f, 3.4e38f, 1.0f, 0.5f};
    float value = ((float)draw(2001) - 1000.0f) / 250.0f;
    const uint32_t bits = draw(UINT32_MAX);
    if (draw(40) == 0)
        value = edges[draw(sizeof edges / sizeof *edges)];
    else if (draw(60) == 0)
        memcpy(&value, &bits, sizeof value);
    return value;
}

static float *numbers(size_t count)
{
    float *values = malloc((count > 0 ? count : 1) * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = number();
    return values;
}

static tinyfl_online_set some_set(void)
{
    tinyfl_online_set s = {.head = (uint8_t)draw(5), .standardised = (uint8_t)draw(4), .embedded = (uint8_t)draw(2)};
    s.inputs = draw(6);
    s.size = s.embedded ? draw(6) : s.inputs;
    s.places = s.head == TINYFL_HEAD_RECONSTRUCT ? s.inputs : draw(5);
    s.ring = s.head == TINYFL_HEAD_RECONSTRUCT ? 0 : draw(4);
    s.cap = draw(3) ? draw(300) : draw(UINT32_MAX);
    s.window = draw(9) ? draw(100) : draw(UINT32_MAX);
    s.rate = (float)draw(8) / 4.0f;
    s.clip = draw(2) ? 0.0f : 1.0f;
    s.threshold = draw(4) ? 5.0f : number();
    s.tolerance = 0.1f;
    s.alarm = draw(4) ? (float)draw(4) : number();
    return s;
}

static int one_call(tinyfl_online *o)
{
    const size_t n = o->state->outputs, size = o->set.size;
    const uint32_t sample = o->state->samples - draw(5), what = draw(10);
    float *x = numbers(o->set.inputs), *e = numbers(size), *t = numbers(o->set.places), loss;
    tinyfl_online_result result;
    int code;
    if (what < 3) {
        code = tinyfl_online_enter(o, o->set.standardised == TINYFL_EMBEDDINGS_STANDARDISED ? e : x);
        if (code == TINYFL_OK)
            code = tinyfl_online_sample(o, o->set.embedded ? e : x, x, &result);
        code = code == TINYFL_OK ? 0 : 1; /* a vector may have entered */
    } else if (what < 6) {
        code = o->set.head == TINYFL_HEAD_CLASSES ? tinyfl_online_label(o, sample, draw((uint32_t)n + 3), &loss)
                                                  : tinyfl_online_target(o, sample, t, draw(2) ? &loss : NULL);
    } else if (what == 6) {
        code = draw(2) ? tinyfl_online_add(o) : tinyfl_online_remove(o, draw((uint32_t)n + 2));
    } else if (what == 7) {
        const uint32_t outputs = draw(o->set.places + 2);
        float *head = numbers((size + 1) * outputs);
        code = tinyfl_online_replace(o, outputs, head);
        free(head);
    } else {
        const size_t bytes = tinyfl_online_learnt_bytes(o), kept = draw(3) ? bytes : draw((uint32_t)bytes + 9);
        unsigned char *copy = calloc(bytes + 12, 1);
        memcpy(copy, o->state, bytes);
        for (uint32_t k = draw(3); k > 0; k--)
            copy[draw((uint32_t)bytes)] ^= (unsigned char)(1u << draw(8));
        code = tinyfl_online_restore(o, copy, kept);
        free(copy);
    }
    free(x), free(e), free(t);
    return code;
}

int main(int argc, char **argv)
{
    unsigned long calls = 0, refused = 0;
    state = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1;
    const unsigned long wanted = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000;
    while (calls < wanted) {
        const tinyfl_online_set set = some_set();
        const size_t bytes = tinyfl_online_bytes(&set);
        tinyfl_online o;
        void *memory = malloc(bytes + 1), *before = malloc(bytes + 1);
        int code = tinyfl_online_init(&o, &set, set.places > 0 && draw(2) ? set.places : 1, memory);
        REQUIRE(code == TINYFL_OK || code == TINYFL_EINVAL);
        for (int i = 0; code == TINYFL_OK && i < 200; i++, calls++) {
            const size_t learnt = tinyfl_online_learnt_bytes(&o);
            REQUIRE(learnt <= bytes);
            memcpy(before, o.state, learnt);
            const int answer = one_call(&o);
            REQUIRE(answer == 0 || answer == 1 || answer == TINYFL_EINVAL || answer == TINYFL_ENUMERIC ||
                    (answer <= TINYFL_EFULL && answer >= TINYFL_EGONE));
            REQUIRE(answer >= 0 || memcmp(before, o.state, learnt) == 0);
            refused += answer != 0;
        }
        free(memory), free(before);
    }
    printf("%lu %lu\n", calls, refused);
    return 0;
}
