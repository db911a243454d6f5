#include "frame.h"

uint16_t tinyfl_crc16(const uint8_t *bytes, size_t count)
{
    uint32_t crc = 0;
    for (size_t i = 0; i < count; i++) {
        /* The polynomial x^16 + x^12 + x^5 + 1, byte by byte, without a table. */
        uint32_t x = (crc >> 8 ^ bytes[i]) & 0xffu;
        x ^= x >> 4;
        crc = (crc << 8 ^ x << 12 ^ x << 5 ^ x) & 0xffffu;
    }
    return (uint16_t)crc;
}

static void put(tinyfl_frame *frame, uint8_t byte)
{
    if (frame->count < frame->room)
        frame->bytes[frame->count++] = byte;
    else
        frame->lost = 1;
}

/* Ends the frame: returns its message's length if it is complete. */
static size_t finish(tinyfl_frame *frame)
{
    const size_t count = frame->count;
    const int empty = frame->code == 0, whole = frame->run == 0 && !frame->lost && count > TINYFL_CRC_BYTES;
    frame->count = 0;
    frame->run = frame->code = frame->lost = 0;
    /* A message followed by its own CRC has the CRC 0. */
    if (whole && tinyfl_crc16(frame->bytes, count) == 0) {
        frame->bad = 0;
        return count - TINYFL_CRC_BYTES;
    }
    if (!empty && frame->bad < 255)
        frame->bad++;
    return 0;
}

size_t tinyfl_frame_take(tinyfl_frame *frame, uint8_t byte)
{
    if (byte == 0)
        return finish(frame);
    if (frame->run > 0) {
        frame->run--;
        put(frame, byte);
    } else {
        if (frame->code != 0 && frame->code != 0xff)
            put(frame, 0);
        frame->code = byte;
        frame->run = (uint8_t)(byte - 1);
    }
    return 0;
}

void tinyfl_frame_write(uint8_t *message, size_t count, void (*write)(const uint8_t *bytes, size_t count))
{
    const uint16_t crc = tinyfl_crc16(message, count);
    message[count++] = (uint8_t)(crc >> 8);
    message[count++] = (uint8_t)crc;
    for (size_t at = 0; at <= count;) {
        size_t run = 0;
        while (run < 254 && at + run < count && message[at + run] != 0)
            run++;
        const uint8_t code = (uint8_t)(run + 1);
        write(&code, 1);
        write(message + at, run);
        at += run;
        if (run < 254)
            at++; /* past the zero implied by the run's code, or past the end */
        else if (at == count)
            break;
    }
    write(&(uint8_t){0}, 1);
}
