/* Frames: COBS(message, CRC-16/XMODEM high byte first), then 0x00 (SPEC.md, wire). */
#ifndef TINYFL_FRAME_H
#define TINYFL_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define TINYFL_CRC_BYTES 2

/* Takes frames in, byte by byte. `bytes` is the caller's room for the longest message with its CRC. */
typedef struct {
    uint8_t *bytes;
    size_t room, count;
    uint8_t run;  /* bytes left of the run at hand */
    uint8_t code; /* the run's first byte; 0 before the first run */
    uint8_t lost; /* too long: dropped when it ends */
} tinyfl_frame;

/* The length of the message that `byte` completes, which lies in `bytes` until the next call; 0: none. */
size_t tinyfl_frame_take(tinyfl_frame *frame, uint8_t byte);

/* Writes a message out. `message` has room for the CRC after its `count` bytes. */
void tinyfl_frame_write(uint8_t *message, size_t count, void (*write)(const uint8_t *bytes, size_t count));

uint16_t tinyfl_crc16(const uint8_t *bytes, size_t count);

#endif
