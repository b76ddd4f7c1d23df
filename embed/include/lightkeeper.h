/* Lightkeeper in your own process: the local API as C functions, with no socket between.
 *
 *     lk_error error;
 *     lk_agent *agent;
 *     if (lk_start("/etc/lightkeeper/agent.json", &agent, &error) != LK_OK)
 *         fprintf(stderr, "%s [%s]\n", error.message, error.reason);
 *
 * Link with -llightkeeper (lightkeeper.lib on Windows) and keep the archive's folder whole: the library runs the Python
 * runtime that lies beside it, and needs none of the system's.
 *
 * Rules:
 * - Every function may be called from any thread, and by many at once. Predict runs in the calling thread.
 * - Every function returns an lk_status and fills `error` unless it is NULL. The statuses have the numbers of gRPC's, and
 *   the reasons are those of docs/errors.md.
 * - Every buffer is the caller's: inputs are read in place while a call lasts, outputs are copied into buffers given.
 *   Where one is too small, LK_BUFFER_TOO_SMALL comes back, and the size that is needed stands beside it.
 * - Strings are UTF-8 and end with a zero byte. Tensors are little-endian and C-contiguous.
 * - Log lines go to the process's standard error. No signal handler is installed. A process that has called lk_start may
 *   not go on in a child made by fork() without exec().
 */
#ifndef LIGHTKEEPER_H
#define LIGHTKEEPER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32) && defined(LK_BUILD)
#define LK_API __declspec(dllexport) /* in the library itself */
#elif defined(_WIN32)
#define LK_API __declspec(dllimport)
#else
#define LK_API __attribute__((visibility("default")))
#endif

enum {
    LK_NAME_BYTES = 256, /* the longest name of a tensor, with its zero byte */
    LK_MODEL_NAME_BYTES = 64,
    LK_PATH_BYTES = 4096,
    LK_RANK_MAXIMUM = 16
};

typedef enum lk_status {
    LK_OK = 0,
    LK_UNKNOWN = 2,
    LK_INVALID_ARGUMENT = 3,
    LK_NOT_FOUND = 5,
    LK_ALREADY_EXISTS = 6,
    LK_RESOURCE_EXHAUSTED = 8,
    LK_FAILED_PRECONDITION = 9,
    LK_OUT_OF_RANGE = 11,
    LK_UNIMPLEMENTED = 12,
    LK_INTERNAL = 13,
    LK_UNAVAILABLE = 14,
    LK_BUFFER_TOO_SMALL = 100
} lk_status;

/* What was wrong: a stable reason code, what happened, and what to do. Each is cut where it is longer. */
typedef struct lk_error {
    lk_status status;
    char reason[64];
    char message[512];
    char next_step[256];
} lk_error;

typedef enum lk_data_type {
    LK_UINT8 = 0,
    LK_INT16 = 1,
    LK_INT32 = 2,
    LK_INT64 = 3,
    LK_FLOAT16 = 4,
    LK_FLOAT32 = 5,
    LK_FLOAT64 = 6
} lk_data_type;

/* A tensor that is given. Without a name it is the input at its position. A `shape` of NULL stands for the type and shape
 * that the model says. */
typedef struct lk_tensor {
    const char *name;
    lk_data_type data_type;
    const int32_t *shape;
    size_t rank;
    const void *data;
    size_t size_bytes;
} lk_tensor;

/* A tensor as a model describes it; a dimension of -1 may have any size. */
typedef struct lk_tensor_description {
    char name[LK_NAME_BYTES];
    lk_data_type data_type;
    int32_t shape[LK_RANK_MAXIMUM];
    size_t rank;
} lk_tensor_description;

/* An output. The caller sets `data` and `capacity_bytes`; the call fills in the rest. */
typedef struct lk_output {
    lk_tensor_description description;
    void *data;
    size_t capacity_bytes;
    size_t size_bytes;
} lk_output;

/* A piece of auxiliary data of a capture; its name says what it is, such as "camera.jpg". */
typedef struct lk_auxiliary {
    const char *name;
    const void *data;
    size_t size_bytes;
} lk_auxiliary;

/* An inference to be kept. Times count from 1970 in UTC; both 0 mean now. */
typedef struct lk_capture {
    const char *model_name;
    const char *capture_id;
    int64_t seconds;
    int32_t nanos;
    const lk_tensor *input_tensors;
    size_t input_tensors_count;
    const lk_tensor *output_tensors;
    size_t output_tensors_count;
    const lk_auxiliary *inputs;
    size_t inputs_count;
    const lk_auxiliary *outputs;
    size_t outputs_count;
} lk_capture;

typedef enum lk_capture_status {
    LK_CAPTURE_FAILURE = 0,
    LK_CAPTURE_SUCCESS = 1,
    LK_CAPTURE_IN_PROGRESS = 2,
    LK_CAPTURE_NOT_FOUND = 3
} lk_capture_status;

typedef struct lk_agent lk_agent;

/* The version of Lightkeeper, such as "1.0.0". */
LK_API const char *lk_version(void);

/* Start an agent with a configuration file; `agent` gets its handle, for lk_stop to take back. The first call in a process
 * starts the Python runtime too. A state folder belongs to one agent at a time. */
LK_API lk_status lk_start(const char *config_path, lk_agent **agent, lk_error *error);

/* Let the calls under way finish, unload every model, and give the handle back. Captures that wait stay on the disk. */
LK_API lk_status lk_stop(lk_agent *agent, lk_error *error);

LK_API lk_status lk_load_model(lk_agent *agent, const char *url, const char *name, lk_error *error);
LK_API lk_status lk_unload_model(lk_agent *agent, const char *name, lk_error *error);

/* Write the names of the loaded models. `count` has the room of `names` before, and the number of models after. */
LK_API lk_status lk_list_models(lk_agent *agent, char (*names)[LK_MODEL_NAME_BYTES], size_t *count, lk_error *error);

/* Describe a model's tensors. Each count has the room before, and the number after. `url` may be NULL. */
LK_API lk_status lk_describe_model(lk_agent *agent, const char *name, char *url, size_t url_size,
                                   lk_tensor_description *inputs, size_t *inputs_count,
                                   lk_tensor_description *outputs, size_t *outputs_count, lk_error *error);

/* Run a model once. `outputs_count` has the room of `outputs` before, and the number of outputs after. Where a buffer is
 * too small, every output's `size_bytes` says what is needed; the model has then run in vain. */
LK_API lk_status lk_predict(lk_agent *agent, const char *name, const lk_tensor *inputs, size_t inputs_count,
                            lk_output *outputs, size_t *outputs_count, lk_error *error);

/* Keep an inference; it is durable, as configured, when this returns LK_OK. */
LK_API lk_status lk_capture_data(lk_agent *agent, const lk_capture *capture, lk_error *error);

LK_API lk_status lk_get_capture_data_status(lk_agent *agent, const char *capture_id, lk_capture_status *status,
                                            lk_error *error);

#ifdef __cplusplus
}
#endif
#endif
