/* flood.c - a program that reports and prints without end: "flood METRICS LINES RATE [GATE]".
 *
 * METRICS report lines of ten values each, with steps from 1, and LINES numbered lines of 100 bytes
 * on standard output, taking turns; RATE of each a second, 0: as fast as they are taken. Waits for
 * the file GATE first. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void nap(double seconds)
{
    struct timespec wait = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    if (seconds > 0)
        nanosleep(&wait, NULL);
}

static int report_open(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("ATHANOR_REPORT");
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path ? path : "");
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        perror("ATHANOR_REPORT");
        exit(3);
    }
    return fd;
}

static void all_written(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t wrote = write(fd, bytes, length);
        if (wrote <= 0) {
            perror("write");
            exit(4);
        }
        bytes += wrote;
        length -= (size_t)wrote;
    }
}

/* Lines of one kind, gathered into writes of up to 32 KiB. */
struct stream {
    int fd;
    long sent, count;
    size_t length;
    char bytes[32768];
};

static void flush(struct stream *stream)
{
    all_written(stream->fd, stream->bytes, stream->length);
    stream->length = 0;
}

static void add(struct stream *stream, const char *line)
{
    size_t length = strlen(line);
    if (stream->length + length > sizeof stream->bytes)
        flush(stream);
    memcpy(stream->bytes + stream->length, line, length);
    stream->length += length;
}

static void metric(struct stream *stream)
{
    char line[512];
    long step = ++stream->sent;
    int at = snprintf(line, sizeof line, "{\"type\":\"metric\",\"step\":%ld,\"values\":{", step);
    for (int i = 0; i < 10; i++)
        at += snprintf(line + at, sizeof line - (size_t)at, "%s\"v%d\":%.4f", i ? "," : "", i,
                       (double)(step * 10 + i) / 7);
    snprintf(line + at, sizeof line - (size_t)at, "}}\n");
    add(stream, line);
}

static void text(struct stream *stream)
{
    char line[128];
    snprintf(line, sizeof line, "line %8ld %085ld\n", stream->sent + 1, stream->sent * 7919);
    stream->sent++;
    add(stream, line);
}

int main(int count, char **arguments)
{
    if (count < 4)
        return 2;
    struct stream metrics = {.fd = report_open(), .count = atol(arguments[1])};
    struct stream lines = {.fd = STDOUT_FILENO, .count = atol(arguments[2])};
    double rate = atof(arguments[3]);
    while (count > 4 && access(arguments[4], F_OK) != 0)
        nap(0.02);
    double began = now();
    for (long turn = 1; metrics.sent < metrics.count || lines.sent < lines.count; turn++) {
        if (metrics.sent < metrics.count)
            metric(&metrics);
        if (lines.sent < lines.count)
            text(&lines);
        if (rate > 0 && turn % (long)(rate / 50 + 1) == 0) {
            flush(&metrics);
            flush(&lines);
            nap(began + (double)turn / rate - now());
        }
    }
    flush(&metrics);
    flush(&lines);
    return 0;
}
