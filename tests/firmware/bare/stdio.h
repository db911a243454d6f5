/* For a program on a bare Cortex-M in QEMU (semihosting.c). */
#ifdef __cplusplus
extern "C"
#endif
int printf(const char *format, ...);
