/* Fuzzing of the agent: an input is a list of acts against one board, as a hostile or broken host would do them. Some acts
 * are raw bytes, some well-framed messages of any content; the rest know the protocol, since no mutation finds a SHA-256.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Ifirmware/agent -Ifirmware/core \
 *       tests/firmware/fuzz_agent.c $(ls firmware/agent/?*.c | grep -v main.c) firmware/core/?*.c -o fuzz_agent
 *   ./fuzz_agent tests/firmware/corpus
 */
#include "board.c"

#include <stdio.h>

#include "cbor.h"

enum { RAW, MESSAGE, PUT_PLAN, PUT_WEIGHTS, TRAIN, SAMPLES, COMMIT, POWER_CUT, RESTART, ACTS };
enum { GROUP = TINYFL_GROUP, WRITE = 2 };

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

static void request(uint8_t command, const tinyfl_writer *w)
{
    if (w->full)
        return;
    const uint8_t header[8] = {1 << 3 | WRITE, 0, (uint8_t)(w->count >> 8), (uint8_t)w->count, 0, GROUP, 1, command};
    memcpy(text, header, sizeof header);
    send_message(8 + w->count);
}

/* Plan or weights, as one block with its own hash, or cut in two. */
static void put(uint8_t command, const uint8_t *bytes, size_t count, size_t cut)
{
    uint8_t hash[TINYFL_SHA256_BYTES];
    tinyfl_sha256_of(bytes, count, hash);
    for (size_t off = 0; off < count || off == 0;) {
        const size_t part = off == 0 && cut < count ? cut : count - off;
        tinyfl_writer w = body();
        tinyfl_put_map(&w, off == 0 ? 4 : 2);
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
        request(command, &w);
        off += part;
        if (part == 0)
            break;
    }
}

static void put_plan(const uint8_t *data, size_t count)
{
    uint8_t plan[8 + 8 * 4] = "TFLP";
    const size_t layers = count > 0 ? data[0] % 5 : 0, bytes = 8 + 8 * (layers < 4 ? layers : 4);
    plan[4] = 1;
    plan[5] = count > 1 ? data[1] % 3 : 0;
    plan[6] = (uint8_t)layers;
    for (size_t i = 8; i < bytes && i - 6 < count; i++)
        plan[i] = data[i - 6] & (i % 8 == 0 || i % 8 == 3 ? 0 : i % 8 == 1 ? 7 : i % 8 == 2 ? 1 : i % 2 ? 0 : 31);
    put(1, plan, bytes, count > 2 ? data[2] : 0);
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

static void number(tinyfl_writer *w, const char *key, uint64_t value)
{
    tinyfl_put_text(w, key);
    tinyfl_put_uint(w, value);
}

static void train(const uint8_t *data, size_t count)
{
    float rate = 0.1f, clip = 0;
    if (count < 16)
        return;
    memcpy(&rate, data + 8, sizeof rate);
    memcpy(&clip, data + 12, sizeof clip);
    tinyfl_writer w = body();
    tinyfl_put_map(&w, 10);
    number(&w, "round", data[0]);
    number(&w, "device", data[1]);
    number(&w, "seed", data[2]);
    number(&w, "samples", data[3] == 255 ? UINT32_MAX : data[3] % 8);
    number(&w, "batch", data[4] % 4);
    number(&w, "passes", data[5] % 4);
    tinyfl_put_text(&w, "rate");
    tinyfl_put_float(&w, rate);
    tinyfl_put_text(&w, "clip");
    tinyfl_put_float(&w, clip);
    tinyfl_put_text(&w, "base");
    tinyfl_put_bytes(&w, agent->hash, sizeof agent->hash);
    tinyfl_put_text(&w, "source");
    tinyfl_put_text(&w, data[6] & 1 ? "sine" : "");
    request(3, &w);
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

static void commit(void)
{
    tinyfl_writer w = body();
    tinyfl_put_map(&w, 1);
    tinyfl_put_text(&w, "sha");
    tinyfl_put_bytes(&w, agent->hash, sizeof agent->hash);
    request(9, &w);
}

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
        const int which = data[0] % ACTS;
        const size_t claimed = data[1] == 255 ? 1000 : data[1], count = claimed < size - 2 ? claimed : size - 2;
        act(which, data + 2, count);
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
