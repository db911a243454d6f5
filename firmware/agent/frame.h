/* Frames: COBS(message, CRC-16/XMODEM high byte first), then 0x00 (SPEC.md, wire). */
#ifndef TINYFL_FRAME_H
#define TINYFL_FRAME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TINYFL_CRC_BYTES 2

/* Decodes frames byte by byte. `bytes` is the caller's buffer for the longest message with its CRC. */
typedef struct {
    uint8_t *bytes;
    size_t room, count;
    uint8_t run;  /* bytes left in the current run */
    uint8_t code; /* the run's first byte; 0 before the first run */
    uint8_t lost; /* too long: dropped at its end */
    uint8_t bad;  /* frames without a message since the last message, empty ones aside; at most 255 */
} tinyfl_frame;

/* Returns the length of the message completed by `byte`, in `bytes` until the next call; 0: none. */
size_t tinyfl_frame_take(tinyfl_frame *frame, uint8_t byte);

/* Writes a message. `message` must have space for the CRC after its `count` bytes. */
void tinyfl_frame_write(uint8_t *message, size_t count, void (*write)(const uint8_t *bytes, size_t count));

uint16_t tinyfl_crc16(const uint8_t *bytes, size_t count);

#ifdef __cplusplus
}
#endif

#endif
