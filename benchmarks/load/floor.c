/* The floor: a bare loop of send(2) to every connection, one call for each frame. No WebSocket library, no events.
 *
 * Speaks the peers' protocol: prints "ready PORT"; "go RATE COUNT BURST SIZE" on stdin broadcasts COUNT times BURST frames
 * of SIZE bytes at RATE per second and prints CPU and wall seconds as JSON. The handshake answer is fixed: the
 * generator always sends the same key.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 65536

static int connections[MAX_CONNECTIONS];
static int count;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void accept_one(int listener) {
    static const char answer[] =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    char head[4096];
    int one = 1, fd = accept(listener, NULL, NULL), got = 0;
    if (fd < 0 || count == MAX_CONNECTIONS) exit(1);
    while (got < 4 || memcmp(head + got - 4, "\r\n\r\n", 4) != 0) {
        ssize_t n = read(fd, head + got, sizeof head - got);
        if (n <= 0) { close(fd); return; }
        got += n;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (write(fd, answer, sizeof answer - 1) < 0) exit(1);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    connections[count++] = fd;
}

static void send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n < 0) {
            struct pollfd full = {fd, POLLOUT, 0};
            poll(&full, 1, 1000);
            continue;
        }
        data += n;
        size -= n;
    }
}

static void broadcast(double rate, int rounds, int burst, int size) {
    char *frame = malloc(size + 4);
    double started = now(), used = cpu(), due = started;
    for (int round = 0; round < rounds; round++) {
        for (int b = 0; b < burst; b++) {
            struct timespec t;
            clock_gettime(CLOCK_MONOTONIC, &t);
            frame[0] = (char)0x81;
            frame[1] = 126;
            frame[2] = size >> 8;
            frame[3] = size & 255;
            memset(frame + 4, 'x', size);
            int n = sprintf(frame + 4, "{\"t\":%020lld,\"p\":\"", t.tv_sec * 1000000000LL + t.tv_nsec);
            frame[4 + n] = 'x';
            memcpy(frame + 4 + size - 2, "\"}", 2);
            for (int c = 0; c < count; c++) send_all(connections[c], frame, size + 4);
        }
        due += 1 / rate;
        double wait = due - now();
        if (wait > 0) usleep(wait * 1e6);
    }
    printf("{\"cpu\": %f, \"wall\": %f}\n", cpu() - used, now() - started);
    fflush(stdout);
    free(frame);
}

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    char line[256];
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 4096)) return 1;
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("ready %d\n", ntohs(address.sin_port));
    fflush(stdout);
    struct pollfd ready[2] = {{listener, POLLIN, 0}, {0, POLLIN, 0}};
    while (poll(ready, 2, -1) > 0) {
        if (ready[0].revents) accept_one(listener);
        if (ready[1].revents) {
            double rate;
            int rounds, burst, size;
            if (!fgets(line, sizeof line, stdin)) return 0;
            if (sscanf(line, "go %lf %d %d %d", &rate, &rounds, &burst, &size) == 4) broadcast(rate, rounds, burst, size);
        }
    }
    return 0;
}
