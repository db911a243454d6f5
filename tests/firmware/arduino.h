/* What Arduino puts before a program: the macros and types of Arduino.h on its several chips, and a version from the build. */
#ifndef ARDUINO_H
#define ARDUINO_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#undef abs
#undef round
#define abs(x) ((x) > 0 ? (x) : -(x))
#define round(x) ((x) >= 0 ? (long)((x) + 0.5) : (long)((x)-0.5))
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define constrain(x, low, high) ((x) < (low) ? (low) : (x) > (high) ? (high) : (x))
#define radians(x) ((x) * DEG_TO_RAD)
#define degrees(x) ((x) * RAD_TO_DEG)
#define sq(x) ((x) * (x))
#define bit(b) (1UL << (b))
#define bitRead(value, bit) (((value) >> (bit)) & 1)
#define bitSet(value, bit) ((value) |= (1UL << (bit)))
#define bitClear(value, bit) ((value) &= ~(1UL << (bit)))
#define lowByte(w) ((uint8_t)((w)&0xff))
#define highByte(w) ((uint8_t)((w) >> 8))
#define interrupts() sei()
#define noInterrupts() cli()
#define F(text) (text)
#define _BV(bit) (1 << (bit))

#define B0 0
#define B1 1
#define LOW 0
#define HIGH 1
#define CHANGE 2
#define FALLING 3
#define RISING 4
#define INPUT 0
#define OUTPUT 1
#define DEFAULT 1
#define EXTERNAL 0
#define INTERNAL 3
#define SERIAL 0
#define DISPLAY 1
#define LSBFIRST 0
#define MSBFIRST 1
#define PI 3.14159265
#define EULER 2.71828183
#define DEG_TO_RAD 0.01745329
#define RAD_TO_DEG 57.2957795
#define PROGMEM
#define F_CPU 16000000L
#define VERSION "1.0"

typedef uint8_t byte;
#ifdef __cplusplus
typedef bool boolean;
#define word(...) makeWord(__VA_ARGS__)
#else
typedef _Bool boolean;
typedef uint16_t word;
#endif

void init(void);
void setup(void);
void loop(void);
void yield(void);
void delay(unsigned long milliseconds);
unsigned long millis(void);
unsigned long micros(void);
long map(long value, long from_low, long from_high, long to_low, long to_high);
void tone(uint8_t pin, unsigned int hertz, unsigned long milliseconds);

#endif
