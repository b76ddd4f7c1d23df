/* Many threads on one agent: crowd CONFIG PACKAGE THREADS CALLS. Each checks its own answers; prints microseconds a call. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "lightkeeper.h"

static lk_agent *agent;
static long calls;

static double now_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static int compare(const void *left, const void *right)
{
    double difference = *(const double *)left - *(const double *)right;
    return (difference > 0) - (difference < 0);
}

static void *caller(void *argument)
{
    long number = (long)(intptr_t)argument, wrong = 0;
    double *took = malloc((size_t)calls * sizeof *took);
    for (long call = 0; call < calls; call++) {
        float values[4], answer[4];
        for (int index = 0; index < 4; index++)
            values[index] = (float)(number * 1000 + call + index);
        lk_tensor input = {"x", LK_FLOAT32, (const int32_t[]){1, 4}, 2, values, sizeof values};
        lk_output output = {.data = answer, .capacity_bytes = sizeof answer};
        size_t count = 1;
        double start = now_us();
        if (lk_predict(agent, "m", &input, 1, &output, &count, NULL) != LK_OK)
            wrong++;
        took[call] = now_us() - start;
        for (int index = 0; index < 4; index++)
            wrong += answer[index] != 2 * values[index];
    }
    qsort(took, (size_t)calls, sizeof *took, compare);
    printf("thread %ld wrong %ld p50 %.1f p99 %.1f\n", number, wrong, took[calls / 2], took[calls * 99 / 100]);
    free(took);
    return NULL;
}

int main(int argc, char **argv)
{
    lk_error error;
    pthread_t threads[64];
    if (argc != 5)
        return 2;
    long count = atol(argv[3]);
    calls = atol(argv[4]);
    if (count > 64 || lk_start(argv[1], &agent, &error) != LK_OK || lk_load_model(agent, argv[2], "m", &error) != LK_OK)
        return 1;
    for (long number = 0; number < count; number++)
        pthread_create(&threads[number], NULL, caller, (void *)(intptr_t)number);
    for (long number = 0; number < count; number++)
        pthread_join(threads[number], NULL);
    return lk_unload_model(agent, "m", &error) == LK_OK && lk_stop(agent, &error) == LK_OK ? 0 : 1;
}
