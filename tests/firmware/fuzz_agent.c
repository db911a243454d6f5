/* Fuzzing of the agent: an input is a list of acts against one board, as a hostile or broken host would do them. Some acts
 * are raw bytes, some well-framed messages of any content; the rest know the protocol, since no mutation finds a SHA-256.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Ifirmware/agent -Ifirmware/core \
 *       tests/firmware/fuzz_agent.c $(ls firmware/agent/?*.c | grep -v main.c) firmware/core/?*.c -o fuzz_agent
 *   ./fuzz_agent NEW tests/firmware/corpus
 *   ./fuzz_agent -merge=1 -use_counters=0 tests/firmware/corpus NEW
 */
#include "board.c"

#include <stdio.h>
#include <stdlib.h>

#include "cbor.h"
#include "commands.h"

enum { RAW, MESSAGE, PUT_PLAN, PUT_WEIGHTS, TRAIN, SAMPLES, COMMIT, POWER_CUT, PUT_PROGRAM, PREDICT, PROGRAM_CUT, PUT_ENCODED,
       RESTART, ACTS, ONLINE = 208 /* a first byte from here on is an act of online learning */ };
enum { GROUP = TINYFL_GROUP, READ = 0, WRITE = 2 };

static uint8_t sent[4096], received[1 << 17], text[TINYFL_BUFFER + 64];
static size_t sent_count;

static void collect(const uint8_t *bytes, size_t count)
{
    if (count > sizeof sent - sent_count)
        abort();
    if (count > 0)
        memcpy(sent + sent_count, bytes, count);
    sent_count += count;
}

/* All that the board sends must be whole frames of at most a buffer's length. */
static void check_replies(size_t count)
{
    static uint8_t room[TINYFL_BUFFER + TINYFL_CRC_BYTES];
    tinyfl_frame frame = {.bytes = room, .room = sizeof room};
    if (count > sizeof received || (count > 0 && received[count - 1] != 0))
        abort();
    for (size_t i = 0; i < count; i++) {
        const size_t whole = tinyfl_frame_take(&frame, received[i]);
        if (received[i] != 0)
            continue;
        const tinyfl_map map = {room + 8, whole - 8};
        if (whole < 8 || (room[0] & 1) == 0 || !tinyfl_map_check(&map))
            abort();
    }
}

static void exchange(const uint8_t *bytes, size_t count)
{
    check_replies(board_exchange(bytes, count, received, sizeof received));
}

static void send_message(size_t count)
{
    sent_count = 0;
    tinyfl_frame_write(text, count, collect);
    exchange(sent, sent_count);
}

static tinyfl_writer body(void) { return (tinyfl_writer){.bytes = text + 8, .room = TINYFL_BUFFER - 8}; }

static void ask(uint8_t operation, uint8_t command, const tinyfl_writer *w)
{
    if (w->full)
        return;
    const uint8_t high = (uint8_t)(w->count >> 8), low = (uint8_t)w->count;
    const uint8_t header[8] = {(uint8_t)(1 << 3 | operation), 0, high, low, 0, GROUP, 1, command};
    memcpy(text, header, sizeof header);
    send_message(8 + w->count);
}

static void request(uint8_t command, const tinyfl_writer *w) { ask(WRITE, command, w); }

static void number(tinyfl_writer *w, const char *key, uint64_t value)
{
    tinyfl_put_text(w, key);
    tinyfl_put_uint(w, value);
}

/* What the first block of weights says of their form. */
typedef struct {
    unsigned codec;
    int has_onto;
    size_t onto; /* bytes, of the hash of what the board holds */
} form;

/* Plan, weights or program, as one block with its own hash, or cut in two. */
static void put_in(uint8_t command, const uint8_t *bytes, size_t count, size_t cut, const form *form)
{
    uint8_t hash[TINYFL_SHA256_BYTES];
    tinyfl_sha256_of(bytes, count, hash);
    for (size_t off = 0; off < count || off == 0;) {
        const size_t part = off == 0 && cut < count ? cut : count - off;
        tinyfl_writer w = body();
        tinyfl_put_map(&w, off == 0 ? (form ? 5u + (size_t)form->has_onto : 4) : 2);
        tinyfl_put_text(&w, "off");
        tinyfl_put_uint(&w, off);
        tinyfl_put_text(&w, "data");
        tinyfl_put_bytes(&w, bytes + off, part);
        if (off == 0) {
            tinyfl_put_text(&w, "len");
            tinyfl_put_uint(&w, count);
            tinyfl_put_text(&w, "sha");
            tinyfl_put_bytes(&w, hash, sizeof hash);
        }
        if (off == 0 && form)
            number(&w, "codec", form->codec);
        if (off == 0 && form && form->has_onto) {
            tinyfl_put_text(&w, "onto");
            tinyfl_put_bytes(&w, agent->held.sha, form->onto);
        }
        request(command, &w);
        off += part;
        if (part == 0)
            break;
    }
}

static void put(uint8_t command, const uint8_t *bytes, size_t count, size_t cut) { put_in(command, bytes, count, cut, NULL); }

/* Windows along a side, as SPEC.md counts them. */
static unsigned windows(unsigned size, unsigned kernel, unsigned stride, int same)
{
    return same ? (size + stride - 1) / stride : size >= kernel ? (size - kernel) / stride + 1 : 0;
}

/* A layer that takes what the one below puts out, which is `shape`; then what this one does. */
static tinyfl_layer layer_on(unsigned shape[3], const uint8_t *data)
{
    tinyfl_layer layer = {
        .kind = data[0] % 5, .activation = data[1] % TINYFL_ACTIVATIONS, .learns = data[1] >> 7, .same = data[0] >> 7};
    const unsigned side = data[2] % 3 + 1u, stride = data[2] / 3 % 2 + 1u;
    if (layer.kind == TINYFL_DENSE) {
        shape[2] *= shape[0] * shape[1];
        shape[0] = shape[1] = 1;
        layer.same = 0;
    }
    layer.height = (uint16_t)shape[0], layer.width = (uint16_t)shape[1], layer.channels = (uint16_t)shape[2];
    layer.kernel_height = layer.kernel_width = (uint8_t)(layer.kind == TINYFL_DENSE ? 1 : side);
    layer.stride_height = layer.stride_width = (uint8_t)(layer.kind == TINYFL_DENSE ? 1 : stride);
    if (layer.kind <= TINYFL_CONV)
        shape[2] = data[3] % 5 + 1u;
    else if (layer.kind == TINYFL_DEPTHWISE)
        shape[2] *= data[3] % 2 + 1u;
    if (layer.kind >= TINYFL_MAX_POOL)
        layer.activation = layer.learns = 0;
    layer.outputs = (uint16_t)shape[2];
    for (int i = 0; i < 2; i++)
        shape[i] = windows(shape[i], layer.kernel_height, layer.stride_height, layer.same);
    return layer;
}

/* Up to four layers that fit each other, with a byte changed if the first says so. */
static void put_plan(const uint8_t *data, size_t count)
{
    uint8_t plan[8 + 16 * 4] = "TFLP";
    uint8_t d[24] = {0};
    memcpy(d, data, count < sizeof d ? count : sizeof d);
    const size_t layers = d[0] % 5, bytes = 8 + 16 * layers;
    unsigned shape[3] = {d[4] % 5 + 1u, d[4] / 5 % 5 + 1u, d[4] / 25 % 3 + 1u};
    plan[4] = 2;
    plan[5] = d[1] % 4;
    plan[6] = (uint8_t)layers;
    for (size_t i = 0; i < layers; i++) {
        const tinyfl_layer layer = layer_on(shape, d + 5 + 4 * i);
        memcpy(plan + 8 + 16 * i, &layer, sizeof layer);
    }
    if (d[0] & 0x80)
        plan[d[2] % bytes] ^= d[3];
    put(1, plan, bytes, d[0] & 0x40 ? d[3] : bytes);
}

/* A program that puts some values through a table (programs.py), with a word changed if the first byte says so. */
static void put_program(const uint8_t *data, size_t count)
{
    enum { HEADER = 48, OP = 84, WHOLE = HEADER + OP + 256 };
    static uint32_t words[WHOLE / 4 + 1];
    uint8_t d[8] = {0};
    memcpy(d, data, count < sizeof d ? count : sizeof d);
    const uint32_t values = d[1] % 64 + 1u, behind = (values + 3) / 4 * 4;
    const uint32_t whole = WHOLE + d[7] % 4u;
    const uint32_t one = 0x3f800000, table = 0x80000000u | (HEADER + OP);
    const uint32_t header[12] = {0x494c4654, 0x10001, whole, 2 * behind, 0, values, one, 0, behind, values, one, 0};
    const uint32_t op[21] = {7, 0x7f80, 0, 0, table, behind, 0, 0, 0, 1, 1, 1, values, 0, 0, 0, 1, 0, 0, 0, 1};
    memcpy(words, header, sizeof header);
    memcpy(words + HEADER / 4, op, sizeof op);
    for (size_t i = 0; i < 64; i++)
        words[(HEADER + OP) / 4 + i] = (uint32_t)i * d[2] * 0x01010101u;
    if (d[0] & 0x80)
        words[d[3] % (WHOLE / 4)] ^= (uint32_t)d[4] << d[5] % 32;
    put(10, (const uint8_t *)words, whole, d[0] & 0x40 ? 4u * d[6] : d[0] & 0x20 ? d[6] : whole);
}

static void put_weights(const uint8_t *data, size_t count)
{
    static uint8_t weights[1000];
    const size_t bytes = agent->state == TINYFL_EMPTY ? 4 : tinyfl_plan_weights(&agent->plan) * 4;
    if (bytes > sizeof weights - 100)
        return;
    for (size_t i = 0; i < bytes; i++)
        weights[i] = count > 1 ? data[i % count] : 0;
    put(2, weights, bytes, count > 0 ? data[0] : 0);
}

/* Weights, or a change of those that the board holds, in a codec's form; one byte too many if the first byte says so. */
static void put_encoded(const uint8_t *data, size_t count)
{
    static uint8_t weights[1001];
    if (count < 3)
        return;
    const tinyfl_codec codec = {data[0] % TINYFL_CODEC_TOP, 0};
    const form form = {data[0] & 0x40 ? TINYFL_CODECS : codec.kind, data[0] >> 4 & 1, data[0] & 8 ? data[1] % 33u : 32};
    const size_t bytes = agent->state == TINYFL_EMPTY ? 4 : tinyfl_codec_bytes(&codec, &agent->plan, TINYFL_EVERY_LAYER);
    if (bytes > sizeof weights - 101)
        return;
    for (size_t i = 0; i < bytes; i++)
        weights[i] = data[2 + i % (count - 2)];
    put_in(2, weights, bytes + (data[0] >> 7), data[1], &form);
}

/* A phase after the first, from 8 bytes. */
static tinyfl_phase phase_of(const uint8_t *d)
{
    return (tinyfl_phase){d[0] % 8, d[1] % 4, d[2] % 4, (float)d[3] / 64.0f, (float)d[4] / 8.0f, (float)d[5] / 8.0f, d[6],
                          d[7] % 4, d[7] / 4 % 4};
}

/* The record of an inner loop of up to four phases, and its length; with a byte changed or too short if the eighth byte says
 * so. */
static size_t inner_of(const uint8_t *d, uint8_t record[16 + 4 * sizeof(tinyfl_phase)])
{
    tinyfl_phase phases[4] = {{.samples = d[3] == 255 ? UINT32_MAX : d[3] % 8,
                               .batch = d[4] % 4,
                               .passes = d[5] % 4,
                               .pull = (float)d[18] / 8.0f,
                               .layers = d[17] ? d[17] : TINYFL_EVERY_LAYER}};
    memcpy(&phases[0].rate, d + 8, sizeof(float));
    memcpy(&phases[0].clip, d + 12, sizeof(float));
    for (int i = 1; i < 4; i++)
        phases[i] = phase_of(d + 12 + 8 * i);
    const uint64_t local = d[16];
    memset(record, 0, 16);
    record[0] = (uint8_t)(1 + (d[7] & 3));
    record[1] = d[7] >> 2 & 1;
    record[2] = d[7] >> 3 & 3;
    record[3] = d[20] % TINYFL_CODECS;
    record[4] = record[3] == TINYFL_CODEC_TOP ? d[21] : 0;
    memcpy(record + 8, &local, sizeof local);
    memcpy(record + 16, phases, sizeof phases);
    const size_t whole = 16 + record[0] * sizeof(tinyfl_phase);
    if (d[7] & 0x80)
        record[d[19] % whole] ^= d[2];
    return d[7] & 0x40 ? d[19] % whole : whole;
}

/* A round, and what the board sends of its weights afterwards. */
static void train(const uint8_t *data, size_t count)
{
    uint8_t d[44] = {0}, record[16 + 4 * sizeof(tinyfl_phase)];
    if (count < 16)
        return;
    memcpy(d, data, count < sizeof d ? count : sizeof d);
    const size_t length = inner_of(d, record);
    tinyfl_writer w = body();
    tinyfl_put_map(&w, 8);
    number(&w, "round", d[0]);
    number(&w, "device", d[1]);
    number(&w, "seed", d[2]);
    number(&w, "run", d[19] & 3);
    number(&w, "saved", d[19] >> 2);
    tinyfl_put_text(&w, "inner");
    tinyfl_put_bytes(&w, record, length);
    tinyfl_put_text(&w, "base");
    tinyfl_put_bytes(&w, agent->hash, sizeof agent->hash);
    tinyfl_put_text(&w, "source");
    tinyfl_put_text(&w, d[6] & 1 ? "sine" : "");
    request(3, &w);
    w = body();
    tinyfl_put_map(&w, 1);
    number(&w, "off", 0);
    ask(READ, 2, &w);
}

/* Whatever a round has claimed is in the arena. */
static void check_arena(void)
{
    if (agent->state == TINYFL_EMPTY)
        return;
    if (tinyfl_learner_end(agent) > agent->arena_bytes)
        abort();
    if (agent->kept.count > tinyfl_plan_weights(&agent->plan))
        abort();
}

static void samples(const uint8_t *data, size_t count)
{
    tinyfl_writer w = body();
    tinyfl_put_map(&w, 2);
    number(&w, "off", agent->fed);
    tinyfl_put_text(&w, "data");
    tinyfl_put_bytes(&w, data, count);
    request((uint8_t)(4 + (count > 0 ? data[0] % 3 : 0)), &w);
}

/* More of the input, or from its start, and a look at the output. */
static void predict(const uint8_t *data, size_t count)
{
    tinyfl_writer w = body();
    tinyfl_put_map(&w, 2);
    number(&w, "off", count > 0 && data[0] & 1 ? 0 : agent->predicted);
    tinyfl_put_text(&w, "data");
    tinyfl_put_bytes(&w, data, count);
    request(11, &w);
    w = body();
    tinyfl_put_map(&w, 1);
    number(&w, "off", count > 1 ? data[1] : 0);
    ask(READ, 11, &w);
}

static void commit(void)
{
    tinyfl_writer w = body();
    tinyfl_put_map(&w, 1);
    tinyfl_put_text(&w, "sha");
    tinyfl_put_bytes(&w, agent->hash, sizeof agent->hash);
    request(9, &w);
}

#include "fuzz_agent_online.h"

static void act(int which, const uint8_t *data, size_t count)
{
    switch (which) {
    case RAW:
        exchange(data, count);
        break;
    case MESSAGE:
        if (count <= TINYFL_BUFFER) {
            memcpy(text, data, count);
            if (count >= 8) { /* of the right length, so that more than the header is read */
                text[2] = (uint8_t)((count - 8) >> 8);
                text[3] = (uint8_t)(count - 8);
            }
            send_message(count);
        }
        break;
    case PUT_PLAN:
        put_plan(data, count);
        break;
    case PUT_WEIGHTS:
        put_weights(data, count);
        break;
    case TRAIN:
        train(data, count);
        break;
    case SAMPLES:
        samples(data, count);
        break;
    case COMMIT:
        commit();
        break;
    case POWER_CUT:
        events_left = count > 0 ? data[0] : 0;
        commit();
        board_start(1024, 0);
        break;
    case PUT_PROGRAM:
        put_program(data, count);
        break;
    case PREDICT:
        predict(data, count);
        break;
    case PUT_ENCODED:
        put_encoded(data, count);
        break;
    case PROGRAM_CUT:
        events_left = count > 0 ? data[0] : 0;
        put_program(data + (count > 0), count - (count > 0));
        board_start(1024, 0);
        break;
    default:
        board_start(count > 0 ? 8u * data[0] + 8u : 1024, 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    turns_most = 200;
    board_start(1024, 1);
    while (size >= 2) {
        const size_t claimed = data[1] == 255 ? 1000 : data[1], count = claimed < size - 2 ? claimed : size - 2;
        if (data[0] >= ONLINE)
            act_online((data[0] - ONLINE) % ONLINE_ACTS, data + 2, count);
        else
            act(data[0] % ACTS, data + 2, count);
        check_arena();
        check_online();
        data += 2 + count;
        size -= 2 + count;
    }
    /* Whatever came: after the end of a frame the board answers, at the latest once a round is aborted. */
    exchange((const uint8_t[]){0}, 1);
    tinyfl_writer w = body();
    tinyfl_put_map(&w, 0);
    request(8, &w);
    w = body();
    tinyfl_put_map(&w, 0);
    request(0, &w);
    const uint8_t describe[8] = {1 << 3, 0, 0, 0, 0, GROUP, 7, 0};
    memcpy(text, describe, sizeof describe);
    sent_count = 0;
    tinyfl_frame_write(text, sizeof describe, collect);
    if (board_exchange(sent, sent_count, received, sizeof received) == 0)
        abort();
    return 0;
}

#ifdef REPLAY
/* Without libFuzzer: each file named is one input. */
int main(int argc, char **argv)
{
    static uint8_t input[1 << 16];
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file)
            return 1;
        LLVMFuzzerTestOneInput(input, fread(input, 1, sizeof input, file));
        fclose(file);
    }
    printf("%d inputs\n", argc - 1);
    return 0;
}
#endif
