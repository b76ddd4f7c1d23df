/* Writes what it gets under $CUSTOM_OUT. $CUSTOM_ERROR is what it answers to uploads, with $CUSTOM_REASON;
   while the file $CUSTOM_OUT/slow is there, uploads do not return. */
#include "provider.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <sys/syscall.h>

static const Result ok = {0, NULL};

static void path(char *to, const char *name) { snprintf(to, 4096, "%s/%s", getenv("CUSTOM_OUT"), name); }

static void say(const char *format, ...) {
    char where[4096];
    path(where, "calls");
    FILE *file = fopen(where, "a");
    va_list given;
    va_start(given, format);
    fprintf(file, "%ld ", syscall(SYS_gettid));
    vfprintf(file, format, given);
    fputc('\n', file);
    va_end(given);
    fclose(file);
}

static Result answer(void) {
    const char *error = getenv("CUSTOM_ERROR");
    Result result = {error ? atoi(error) : 0, getenv("CUSTOM_REASON")};
    return result;
}

Result initProvider(void **ctx) { *ctx = malloc(1); say("initProvider"); return ok; }
Result shutdownProvider(void *ctx) { say("shutdownProvider %d", ctx != NULL); return ok; }
Result initConfiguration(void *ctx, Element conf[], int n) {
    for (int i = 0; i < n; i++) say("%s=%s", conf[i].key, conf[i].value);
    return ok;
}
Result initCloudClient(void *ctx) {
    char where[4096];
    struct stat found;
    path(where, "offline");
    Result away = {12, "no carrier"};
    say("initCloudClient");
    return stat(where, &found) == 0 ? away : ok;
}
Result getNetworkStatus(void *ctx) { say("getNetworkStatus"); return ok; }
Result uploadSampleDataToCloud(void *ctx, const char *bytes, int size, const char *filename, const char *mime) {
    char where[4096], flat[1024];
    struct stat found;
    path(where, "slow");
    while (stat(where, &found) == 0) usleep(5000);
    Result result = answer();
    say("upload %s %d %s", filename, size, mime);
    if (result.error) return result;
    snprintf(flat, sizeof flat, "object-%s", filename);
    for (char *at = flat; *at; at++) if (*at == '/') *at = '+';
    path(where, flat);
    FILE *file = fopen(where, "wb");
    fwrite(bytes, 1, size, file);
    fclose(file);
    return result;
}
Result sendHeartBeatToCloud(void *ctx, Model **models, int n, Metric **agent, int m) {
    for (int i = 0; i < m; i++) say("agent %s %g %s", agent[i]->metricName, agent[i]->metricValue, agent[i]->timestamp);
    for (int i = 0; i < n; i++) {
        say("model %s %s %d", models[i]->name, models[i]->version, models[i]->num_metrics);
        for (int j = 0; j < models[i]->num_metrics; j++)
            say("metric %s %g %s", models[i]->metrics[j].metricName, models[i]->metrics[j].metricValue, models[i]->metrics[j].timestamp);
    }
    return ok;
}
Result getDeviceRegistrationFromCloud(void *ctx, Registration *out) { out->active = true; out->ttl = 3600; return ok; }
