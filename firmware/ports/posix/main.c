/* The agent as a process of Linux or another Unix, a board without a chip:
 *
 *     agent (--pty | --tty DEVICE | --tcp [ADDRESS:]PORT | --stdio) [--serial N] [--slots FILE]
 *           [--readings FILE]
 *
 * With --pty, --tty or --tcp (of this machine only, without ADDRESS; port 0: any that is free) prints a line with the url to open,
 * once it is up. A client that leaves may come again; with --stdio the end of input, with --tty the loss of the device ends the
 * process. Without --serial the id is the machine's serial number, or 0. Without --slots the slots are lost with the process.
 * Readings are as in an emulator's memory (firmware/ports/cortex_m/cortex_m.h). */
#define _XOPEN_SOURCE 700

#include "agent.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define ARENA_BYTES (1u << 20)
#define SLOT_BYTES (1u << 19)
#define PROGRAM_BYTES (1u << 20)
#define AREA_BYTES (1u << 16)
#define ALL_SLOTS (2 * SLOT_BYTES + PROGRAM_BYTES + 2 * AREA_BYTES)
#define BAUD 115200u /* of --tty, at first */
#define PATIENCE 1000 /* ms for a client to read; then the bytes are dropped, as on a cable */

static int in = -1, out = -1, listener = -1;
static tinyfl_slot slots[TINYFL_SLOTS] = {
    {NULL, SLOT_BYTES}, {NULL, SLOT_BYTES}, {NULL, PROGRAM_BYTES}, {NULL, AREA_BYTES}, {NULL, AREA_BYTES},
};
static uint8_t *stored;
static int in_file;
static jmp_buf start;

static void die(const char *what)
{
    fprintf(stderr, "agent: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void hang_up(void)
{
    if (listener < 0)
        exit(0); /* --stdio, --tty */
    close(in);
    in = out = -1;
}

/* A client that vanished without a word, by its own end or the network's, does not keep others out for long. */
static int outlive_client(void)
{
    const int yes = 1;
    int code = setsockopt(in, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
#ifdef TCP_KEEPIDLE
    const int idle = 10, interval = 5, probes = 3; /* seconds, seconds */
    code |= setsockopt(in, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    code |= setsockopt(in, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    code |= setsockopt(in, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
#endif
#ifdef TCP_USER_TIMEOUT
    const int unacknowledged = 25000; /* ms: for what it was sent */
    code |= setsockopt(in, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged, sizeof unacknowledged);
#endif
    return code;
}

/* Accepts the next client, if there is one. */
static void answer_call(void)
{
    const int yes = 1;
    in = out = accept(listener, NULL, NULL);
    if (in >= 0 && (setsockopt(in, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) < 0 || outlive_client() < 0 ||
                    fcntl(in, F_SETFL, O_NONBLOCK) < 0))
        hang_up();
}

static int read_byte(void)
{
    static uint8_t bytes[4096];
    static ssize_t count, next;
    if (next == count) {
        next = 0;
        if (in < 0)
            answer_call();
        count = in < 0 ? -1 : read(in, bytes, sizeof bytes);
        if (count == 0 || (count < 0 && in >= 0 && errno != EAGAIN && errno != EINTR))
            hang_up();
        if (count <= 0) {
            count = 0;
            return -1;
        }
    }
    return bytes[next++];
}

static void idle(void)
{
    struct pollfd wait = {.fd = in >= 0 ? in : listener, .events = POLLIN};
    poll(&wait, 1, -1);
}

static void write_all(const uint8_t *bytes, size_t count)
{
    while (count > 0 && out >= 0) {
        const ssize_t written = write(out, bytes, count);
        struct pollfd room = {.fd = out, .events = POLLOUT};
        if (written > 0) {
            bytes += written;
            count -= (size_t)written;
        } else if (written < 0 && errno != EAGAIN && errno != EINTR) {
            return; /* read_byte will find that the client has left */
        } else if (poll(&room, 1, PATIENCE) == 0) {
            return;
        }
    }
}

static void restart(void) { longjmp(start, 1); }

static int kept(void) { return !in_file || msync(stored, ALL_SLOTS, MS_SYNC) == 0 ? 0 : -1; }

/* One after the other. */
static uint8_t *slot_at(int slot)
{
    size_t at = 0;
    for (int i = 0; i < slot; i++)
        at += slots[i].count;
    return stored + at;
}

static int erase(int slot)
{
    memset(slot_at(slot), 0xff, slots[slot].count);
    return kept();
}

static int program(int slot, uint32_t offset, const uint8_t *bytes, size_t count)
{
    uint8_t *at = slot_at(slot) + offset;
    for (size_t i = 0; i < count; i++)
        if (at[i] != 0xff)
            return -1;
    memcpy(at, bytes, count);
    return kept();
}

static void alive(void) {} /* the parent process watches it */

static uint32_t millis(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint32_t)((uint64_t)time.tv_sec * 1000u + (uint64_t)time.tv_nsec / 1000000u);
}

static const uint8_t *readings; /* NULL: none */

static int recorded(uint32_t number, void *reading, size_t bytes)
{
    uint32_t head[2] = {0, 0}; /* their number, and bytes of each */
    if (readings)
        memcpy(head, readings, sizeof head);
    if (head[0] == 0 || head[1] != bytes)
        return -1;
    memcpy(reading, readings + sizeof head + (size_t)(number % head[0]) * bytes, bytes);
    return 0;
}

static tinyfl_port port = {
    .board = TINYFL_BOARD,
    .clock = TINYFL_CLOCK,
    .id_bytes = 8,
    .read = read_byte,
    .idle = idle,
    .write = write_all,
    .alive = alive,
    .reset = restart,
    .millis = millis,
    .recorded = recorded,
    .slots = slots,
    .erase = erase,
    .program = program,
};

const tinyfl_port *tinyfl_port_start(void) { return &port; }

static int use_number(const char *text, int base)
{
    char *end;
    errno = 0;
    const unsigned long long serial = strtoull(text, &end, base);
    if (errno || *end || end == text)
        return -1;
    for (int i = 0; i < 8; i++)
        port.id[i] = (uint8_t)(serial >> (56 - 8 * i));
    return 0;
}

/* On a Raspberry Pi 16 hexadecimal digits. */
static void use_machines_serial(void)
{
    char text[32] = "";
    FILE *file = fopen("/proc/device-tree/serial-number", "r");
    if (!file)
        return;
    if (fgets(text, sizeof text, file))
        use_number(text, 16);
    fclose(file);
}

/* All slots in a file, or in volatile memory; new slots read as erased flash. */
static void use_slots(const char *path)
{
    static uint8_t lost[ALL_SLOTS];
    off_t length = 0;
    stored = lost;
    if (path) {
        const int file = open(path, O_RDWR | O_CREAT, 0666);
        if (file < 0 || (length = lseek(file, 0, SEEK_END)) < 0 || ftruncate(file, ALL_SLOTS) < 0)
            die(path);
        stored = mmap(NULL, ALL_SLOTS, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (stored == MAP_FAILED)
            die(path);
    }
    if (length < (off_t)ALL_SLOTS)
        memset(stored + length, 0xff, ALL_SLOTS - (size_t)length);
    in_file = path != NULL;
    for (int i = 0; i < TINYFL_SLOTS; i++)
        slots[i].bytes = slot_at(i);
}

/* Bytes as they are, 8N1; -1 if it is no terminal. */
static int make_raw(int terminal)
{
    struct termios raw;
    if (tcgetattr(terminal, &raw) < 0)
        return -1;
    raw.c_iflag = raw.c_oflag = raw.c_lflag = 0;
    raw.c_cflag = (raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB | CSTOPB)) | CS8 | CREAD | CLOCAL;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    return tcsetattr(terminal, TCSANOW, &raw);
}

static void use_readings(const char *path)
{
    const int file = open(path, O_RDONLY);
    const off_t length = file < 0 ? -1 : lseek(file, 0, SEEK_END);
    uint32_t head[2];
    errno = EINVAL;
    if (length < (off_t)sizeof head || pread(file, head, sizeof head, 0) != (ssize_t)sizeof head ||
        (uint64_t)length != sizeof head + (uint64_t)head[0] * head[1])
        die(path);
    readings = mmap(NULL, (size_t)length, PROT_READ, MAP_PRIVATE, file, 0);
    if (readings == MAP_FAILED)
        die(path);
}

/* The other end is kept open too, so that a client that closes it does not hang up the line. */
static void use_pty(void)
{
    in = out = posix_openpt(O_RDWR | O_NOCTTY);
    if (in < 0 || grantpt(in) < 0 || unlockpt(in) < 0)
        die("--pty");
    const int other = open(ptsname(in), O_RDWR | O_NOCTTY);
    if (other < 0 || make_raw(other) < 0 || fcntl(in, F_SETFL, O_NONBLOCK) < 0)
        die("--pty");
    printf("%s\n", ptsname(in));
}

static const struct {
    uint32_t baud;
    speed_t speed;
} speeds[] = {
    {BAUD, B115200}, {230400, B230400},
#ifdef B460800
    {460800, B460800},
#endif
#ifdef B921600
    {921600, B921600},
#endif
};
enum { SPEEDS = sizeof speeds / sizeof speeds[0] };

static void change_rate(uint32_t baud)
{
    struct termios now;
    for (size_t i = 0; i < SPEEDS; i++)
        if (speeds[i].baud == baud && tcgetattr(in, &now) == 0 && cfsetispeed(&now, speeds[i].speed) == 0 &&
            cfsetospeed(&now, speeds[i].speed) == 0)
            tcsetattr(in, TCSADRAIN, &now);
}

/* A UART, or the device's end of a USB cable. Without waiting for a carrier, which most have no wire for. */
static void use_tty(const char *path)
{
    static uint32_t rates[SPEEDS]; /* with the closing 0 instead of BAUD */
    in = out = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (in < 0 || make_raw(in) < 0)
        die(path);
    for (size_t i = 1; i < SPEEDS; i++)
        rates[i - 1] = speeds[i].baud;
    port.baud = BAUD;
    port.rates = rates;
    port.rate = change_rate;
    change_rate(BAUD);
    printf("%s\n", path);
}

static void use_tcp(const char *text)
{
    char address[INET_ADDRSTRLEN] = "127.0.0.1", *end;
    const char *colon = strrchr(text, ':'), *port_text = colon ? colon + 1 : text;
    const long number = strtol(port_text, &end, 10);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number)};
    socklen_t length = sizeof at;
    const int yes = 1;
    if (colon && snprintf(address, sizeof address, "%.*s", (int)(colon - text), text) >= (int)sizeof address)
        *address = 0;
    errno = EINVAL;
    if (*end || end == port_text || number < 0 || number > 65535 || inet_pton(AF_INET, address, &at.sin_addr) != 1)
        die("--tcp");
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
        bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 1) < 0 ||
        getsockname(listener, (struct sockaddr *)&at, &length) < 0 || fcntl(listener, F_SETFL, O_NONBLOCK) < 0)
        die("--tcp");
    printf("socket://%s:%d\n", address, ntohs(at.sin_port));
}

static void use_stdio(void)
{
    in = STDIN_FILENO;
    out = STDOUT_FILENO;
    if (fcntl(in, F_SETFL, O_NONBLOCK) < 0)
        die("--stdio");
}

int main(int argc, char **argv)
{
    const char *link = "", *where = "", *serial = NULL, *file = NULL;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--pty") == 0 || strcmp(argv[i], "--stdio") == 0)
            link = argv[i];
        else if (strcmp(argv[i], "--tcp") == 0 || strcmp(argv[i], "--tty") == 0)
            link = argv[i++], where = value;
        else if (strcmp(argv[i], "--serial") == 0)
            i++, serial = value;
        else if (strcmp(argv[i], "--slots") == 0)
            i++, file = value;
        else if (strcmp(argv[i], "--readings") == 0)
            i++, use_readings(value);
        else
            link = NULL, i = argc;
    }
    if (!link || !*link) {
        fprintf(stderr, "usage: agent (--pty | --tty DEVICE | --tcp [ADDRESS:]PORT | --stdio) [--serial N] [--slots FILE] "
                        "[--readings FILE]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    use_machines_serial();
    if (serial && use_number(serial, 0) < 0) {
        errno = EINVAL;
        die("--serial");
    }
    use_slots(file);
    if (strcmp(link, "--tcp") == 0)
        use_tcp(where);
    else if (strcmp(link, "--tty") == 0)
        use_tty(where);
    else if (strcmp(link, "--pty") == 0)
        use_pty();
    else
        use_stdio();
    fflush(stdout);

    static tinyfl_agent agent;
    static uint64_t arena[ARENA_BYTES / 8];
    setjmp(start);
    tinyfl_agent_init(&agent, tinyfl_port_start(), arena, sizeof arena);
    for (;;)
        tinyfl_agent_turn(&agent);
}
