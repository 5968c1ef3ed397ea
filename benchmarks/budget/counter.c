/* Lets a program under valgrind's callgrind say what is counted. */
#include <valgrind/callgrind.h>

void begin(void) {
    CALLGRIND_START_INSTRUMENTATION; /* and keep it on: to stop it throws away all translated code */
    CALLGRIND_ZERO_STATS;
}

void end(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }

void rest(void) { CALLGRIND_STOP_INSTRUMENTATION; }
